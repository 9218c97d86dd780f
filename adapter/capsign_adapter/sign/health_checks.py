"""What a replica looks at to know how it is: its token, its store and disk, its descriptors. See
`condition`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from capsign_adapter.keys import labels
from capsign_adapter.sign.replica_health import Look
from capsign_adapter.sign.storage_forecast import StorageForecast
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.database import Database
from capsign_adapter.token.interface import KeyMissingError, PinRejectedError, Token, TokenError

EVERY_S = 2.0
"""Between looks."""

WRITE_EVERY = 2
"""Looks at the store for one write: an idle disk has some rest. Until one succeeds, each look
writes.
"""

NEARLY_FULL_BYTES = 2 * 1024 * 1024
"""Free bytes on the store's disk below which it counts as full: a few thousand signatures, or
less.
"""

CLOCKS_APART_MS = 5_000
"""How far this clock and the store's may differ, beside the skew that policy forgives."""


def word_of(error: Exception) -> str:
    """What a look met, as a word."""
    if isinstance(error, KeyMissingError):
        return "log_key_missing"
    if isinstance(error, PinRejectedError):
        return "pin_rejected"
    if isinstance(error, TokenError):
        return "token_unavailable"
    if isinstance(error, StoreUnavailableError | CommitUnknownError):
        return "store_unavailable"
    return "internal"


def at_token(token: Token) -> Look:
    """The log's key is there, and the token answers somebody who is logged in. Cheap, and signs
    nothing.
    """

    def look() -> str:
        token.attributes(labels.LOG)
        return ""

    return look


class Answering(ControlState, Database, Protocol):
    """What a look at the store asks of it."""


def at_store(
    store: Answering,
    write: Callable[[], None],
    disk: Path | None,
    now_ms: Callable[[], int],
    skew_ms: int,
) -> Look:
    """It answers and takes a write, its disk has room, and its clock (if it has one) is ours.

    `write` says again what it has said before.
    """

    due = 0

    def look() -> str:
        nonlocal due
        store.control()
        try:
            if due == 0:
                write()
            due = (due + 1) % WRITE_EVERY
        except StoreUnavailableError:
            if disk is not None and _room(disk) < NEARLY_FULL_BYTES:
                return "disk_full"
            raise
        if disk is not None and _room(disk) < NEARLY_FULL_BYTES:
            return "disk_nearly_full"
        told_ms = store.clock_ms()
        if told_ms is not None and abs(told_ms - now_ms()) > skew_ms + CLOCKS_APART_MS:
            return "clock_off"
        return ""

    return look


def at_growth(
    growth: StorageForecast,
    store: Database,
    free: Callable[[int], int],
    monotonic_ms: Callable[[], int],
) -> Callable[[], None]:
    """What the store takes, and what it may still take: `free` of what it takes."""

    def look() -> None:
        taken = store.size_bytes()
        growth.record(monotonic_ms(), taken, free(taken))

    return look


def free_of(disk: Path | None, capacity_bytes: int) -> Callable[[int], int] | None:
    """What a store may still take, of what it takes: the free bytes of its disk, where that is one
    of this machine, or what is left of the capacity that it was given. None: nobody knows.
    """
    if disk is not None:
        return lambda _: _room(disk)
    if capacity_bytes:
        return lambda taken: max(0, capacity_bytes - taken)
    return None


def at_descriptors() -> str:
    """Another file or connection can be opened."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return "descriptors_exhausted" if error.errno in {errno.EMFILE, errno.ENFILE} else ""
    return ""


def _room(disk: Path) -> int:
    """Free bytes; none where it cannot be seen."""
    try:
        seen = os.statvfs(disk)
    except OSError:
        return 0
    return seen.f_bavail * seen.f_frsize
