"""The log as files of C2SP tlog-tiles, read from the store: what the listener for verifiers serves
and what moves to cold files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from capsign_evidence.merkle import TILE_WIDTH
from capsign_evidence.tiles import (
    BATCH_HEAD,
    FileKind,
    TileName,
    batch_file,
    bundle,
    read_tile,
    width_at,
)
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.evidence import AuditBatches, EvidenceLog

PAGE = 8
"""Batches that are read at once: each has a mebibyte at most."""


class LogStore(ControlState, EvidenceLog, AuditBatches, Protocol):
    """The parts of the store that files are made from."""


def batches_between(store: AuditBatches, first: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The agents' batches among these leaves, ascending, a few in memory at a time."""
    while first < end:
        found = store.audit_batches(first_leaf=first, limit=PAGE, end_leaf=end)
        yield from ((index, batch) for index, _, batch in found)
        if len(found) < PAGE:
            return
        first = found[-1][0] + 1


def batch_page(
    store: AuditBatches, first: int, end: int, most: int, most_bytes: int
) -> tuple[list[tuple[int, bytes]], int]:
    """Batches among these leaves: `most` at most, of `most_bytes` together unless one alone has
    more; and the first leaf that was not looked at, `end` if that was all.
    """
    taken: list[tuple[int, bytes]] = []
    size = 0
    for index, batch in batches_between(store, first, end):
        size += len(batch) + BATCH_HEAD
        if taken and (size > most_bytes or len(taken) == most):
            return taken, index
        taken.append((index, batch))
    return taken, end


def log_file(store: LogStore, kind: FileKind, tile: TileName, most: int) -> bytes:
    """The bytes of a file of the log. Raises FailureError NOT_IN_LOG if the log does not have all
    of it, INPUT_TOO_LARGE if batches have more than `most` bytes together.
    """
    if width_at(tile.level, tile.index, store.control().tree_size) < tile.width:
        detail = "The log does not hold this file at that width yet."
        raise FailureError(failures_pb2.REASON_NOT_IN_LOG, detail)
    first = tile.index * TILE_WIDTH
    if kind is FileKind.HASHES:
        return read_tile(store.hashes, tile)
    if kind is FileKind.ENTRIES:
        return bundle(store.entries(first, tile.width))
    size, taken = 0, []
    for index, batch in batches_between(store, first, first + tile.width):
        size += len(batch) + BATCH_HEAD
        if size > most:
            detail = f"These batches have more than {most} bytes. Fetch them with GetBatches."
            raise FailureError(failures_pb2.REASON_INPUT_TOO_LARGE, detail)
        taken.append((index, batch))
    return batch_file(taken)
