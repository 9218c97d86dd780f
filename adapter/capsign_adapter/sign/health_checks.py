"""The health checks of a replica: its token, its store and disk, its file descriptors; and samples
of the store's size. `replica_health` runs them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from capsign_adapter.keys import labels
from capsign_adapter.sign.replica_health import HealthCheck
from capsign_adapter.sign.storage_forecast import StorageForecast
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.database import Database
from capsign_adapter.token.interface import KeyMissingError, PinRejectedError, Token, TokenError

EVERY_S = 2.0
"""Time between runs of a check, seconds."""

WRITE_EVERY = 2
"""The store's check writes in every second run, to spare an idle disk; after a failed write in each
run until one succeeds.
"""

NEARLY_FULL_BYTES = 2 * 1024 * 1024
"""Free bytes on the store's disk below which it counts as full: some thousand signatures."""

CLOCKS_APART_MS = 5_000
"""How far this clock and the store's may differ, in addition to the skew that policy allows."""


def fault_of(error: Exception) -> str:
    """Returns the fault for an exception that a check raised."""
    if isinstance(error, KeyMissingError):
        return "log_key_missing"
    if isinstance(error, PinRejectedError):
        return "pin_rejected"
    if isinstance(error, TokenError):
        return "token_unavailable"
    if isinstance(error, StoreUnavailableError | CommitUnknownError):
        return "store_unavailable"
    return "internal"


def token_check(token: Token) -> HealthCheck:
    """Returns a check that the token answers and has the log's key. It signs nothing."""

    def check() -> str:
        token.attributes(labels.LOG)
        return ""

    return check


class CheckedStore(ControlState, Database, Protocol):
    """The parts of the store that its check uses."""


def store_check(
    store: CheckedStore,
    write: Callable[[], None],
    disk: Path | None,
    now_ms: Callable[[], int],
    skew_ms: Callable[[], int],
) -> HealthCheck:
    """Returns a check that the store answers and can be written, that its disk has room, and that
    its clock, if it has one, agrees with `now_ms`.

    `write` repeats a write that leaves nothing new. `disk` is where the store is, if it is on this
    machine.
    """

    due = 0

    def check() -> str:
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
        if told_ms is not None and abs(told_ms - now_ms()) > skew_ms() + CLOCKS_APART_MS:
            return "clock_off"
        return ""

    return check


def storage_sampler(
    forecast: StorageForecast,
    store: Database,
    free: Callable[[int], int],
    monotonic_ms: Callable[[], int],
) -> Callable[[], None]:
    """Returns a function that adds a sample to the forecast. `free` gives the bytes that are left,
    from those that the store takes.
    """

    def sample() -> None:
        taken = store.size_bytes()
        forecast.record(monotonic_ms(), taken, free(taken))

    return sample


def free_of(disk: Path | None, capacity_bytes: int) -> Callable[[int], int] | None:
    """Returns a function from the bytes that the store takes to those that are left: the free bytes
    of its disk, if it is on this machine, or else the rest of the configured capacity. None if
    neither is known.
    """
    if disk is not None:
        return lambda _: _room(disk)
    if capacity_bytes:
        return lambda taken: max(0, capacity_bytes - taken)
    return None


def descriptor_check() -> str:
    """A check that another file or connection can be opened."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return "descriptors_exhausted" if error.errno in {errno.EMFILE, errno.ENFILE} else ""
    return ""


def _room(disk: Path) -> int:
    """Returns the free bytes of a disk; 0 if they cannot be read."""
    try:
        seen = os.statvfs(disk)
    except OSError:
        return 0
    return seen.f_bavail * seen.f_frsize
