"""The store's tables as an archive, whichever engine holds them (docs/formats.md, "Store schema").

Read in pieces, each a statement of its own: a long read must not keep the engine from tidying up
behind a live adapter.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

from capsign_evidence.archive.interface import ALL, ArchiveError, Batch
from capsign_evidence.merkle import HASH_LEN
from capsign_evidence.packed_batch import unpack

Row = tuple[Any, ...]

SEGMENTS = 32
"""Segments in a piece: one holds the leaves of one commit, seldom above a thousand."""

BATCHES = 32
"""Batches in a piece; each is at most a mebibyte, and a usual one some kilobytes."""

SUMMARIES = 1024
"""Summaries in a piece; a usual one has one or two kilobytes."""

POLICIES = 4
"""Documents of policies in a piece; each is at most some mebibytes."""

_LENGTH = struct.Struct(">H")


class RelationalArchive(ABC):
    """What is the same for all engines: SQL with `?` for parameters, whose rows are bounded."""

    _tables: frozenset[str]
    """The tables that there are: earlier releases had fewer."""

    @abstractmethod
    def _rows(self, sql: str, *parameters: Any) -> list[Row]:
        """All rows. Raises ArchiveError."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    @property
    def origin(self) -> str:
        note = self.checkpoint()
        return note.partition(b"\n")[0].decode(errors="replace") if note else ""

    @property
    def first(self) -> int:
        rows = self._rows("SELECT MIN(first_index) FROM log_segments")
        return int(rows[0][0] or 0)

    @property
    def size(self) -> int:
        rows = self._rows(
            "SELECT first_index + leaf_count FROM log_segments ORDER BY first_index DESC LIMIT 1"
        )
        return int(rows[0][0]) if rows else 0

    def checkpoint(self) -> bytes | None:
        return next(iter(self.notes()), None)

    def notes(self) -> list[bytes]:
        found = [
            row
            for table in ("published", "checkpoint")  # of one size, the one with cosignatures
            if table in self._tables
            for row in self._rows(f"SELECT tree_size, note FROM {table} WHERE id = 1")  # noqa: S608 - constants
        ]
        found.sort(key=lambda row: int(row[0]), reverse=True)
        return [_blob(note) for _, note in found]

    def entries(self, first: int, count: int) -> Iterator[bytes]:
        last = first + count
        for start, leaf_count, bundle in self._segments("entries", first, last):
            entries = _split(bundle)
            if len(entries) != leaf_count:
                raise ArchiveError(
                    f"The entries of leaves {start} to {start + leaf_count - 1} are cut off.",
                    "This is an incident or a damaged disk: keep the store as it is.",
                    damaged=True,
                )
            yield from entries[max(first - start, 0) : last - start]

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        if level:
            rows = self._rows(
                "SELECT hash FROM log_nodes WHERE tile_level = ? AND node_index >= ? AND "
                "node_index < ? ORDER BY node_index",
                level,
                first,
                first + count,
            )
            return [_blob(row[0]) for row in rows]
        found: list[bytes] = []
        for start, _, blob in self._segments("hashes", first, first + count):
            low = max(first - start, 0) * HASH_LEN
            high = min((first + count - start) * HASH_LEN, len(blob))
            found.extend(blob[at : at + HASH_LEN] for at in range(low, high, HASH_LEN))
        return found

    def batches(self, first_leaf: int, count: int = ALL) -> Iterator[Batch]:
        last = first_leaf + count
        while True:
            rows = self._rows(
                "SELECT b.leaf_index, w.spiffe_id, b.batch FROM audit_batches b JOIN workloads w "
                "ON w.id = b.workload_id WHERE b.leaf_index >= ? AND b.leaf_index < ? ORDER BY "
                "b.leaf_index LIMIT ?",
                first_leaf,
                last,
                BATCHES,
            )
            for index, workload, batch in rows:
                yield int(index), _text(workload), unpack(_blob(batch))
            if len(rows) < BATCHES:
                return
            first_leaf = int(rows[-1][0]) + 1

    def summaries(self, first_tile: int) -> Iterator[tuple[int, bytes]]:
        if "log_summaries" not in self._tables:
            return
        while True:
            rows = self._rows(
                "SELECT tile_index, summary FROM log_summaries WHERE tile_index >= ? ORDER BY "
                "tile_index LIMIT ?",
                first_tile,
                SUMMARIES,
            )
            for tile, summary in rows:
                yield int(tile), _blob(summary)
            if len(rows) < SUMMARIES:
                return
            first_tile = int(rows[-1][0]) + 1

    def policies(self) -> Iterator[bytes]:
        if "policies" not in self._tables:
            return
        version = 0
        while rows := self._rows(
            "SELECT version, document FROM policies WHERE version > ? ORDER BY version LIMIT ?",
            version,
            POLICIES,
        ):
            for each, document in rows:
                yield _blob(document)
                version = int(each)

    def policy(self, digest: bytes) -> bytes | None:
        if "policies" not in self._tables:
            return None
        rows = self._rows("SELECT document FROM policies WHERE digest = ? LIMIT 1", digest)
        found = _blob(rows[0][0]) if rows else None
        return found if found is not None and sha256(found).digest() == digest else None

    def _segments(self, column: str, first: int, last: int) -> Iterator[tuple[int, int, bytes]]:
        """First index, number of leaves and blob of each segment that holds leaves of this range,
        without a gap.
        """
        if first >= last:
            return
        start, expected = first, None
        while start < last:
            rows = self._rows(
                f"SELECT first_index, leaf_count, {column} FROM log_segments WHERE "  # noqa: S608 - constants
                "first_index >= (SELECT COALESCE(MAX(first_index), 0) FROM log_segments WHERE "
                "first_index <= ?) AND first_index < ? ORDER BY first_index LIMIT ?",
                start,
                last,
                SEGMENTS,
            )
            for index, leaf_count, blob in rows:
                if index != (expected if expected is not None else min(index, first)):
                    raise ArchiveError(
                        f"Leaves {expected if expected is not None else first} to {index - 1} are "
                        "not in the store.",
                        "Where they were moved to cold files, name those too; else this is an "
                        "incident: keep the store as it is.",
                        damaged=True,
                    )
                yield index, leaf_count, _blob(blob)
                expected = index + leaf_count
            if len(rows) < SEGMENTS or expected is None:
                return
            start = expected

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _blob(value: object) -> bytes:
    """Bytes of a column. SQLite keeps what it is given: another type may have been put there."""
    if type(value) is bytes:
        return value
    if not isinstance(value, bytearray | memoryview):
        raise ArchiveError(
            "A column of the store that holds bytes has another type.",
            "This is an incident: keep the store as it is.",
            damaged=True,
        )
    return bytes(value)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _split(bundle: bytes) -> list[bytes]:
    """The entries of a bundle (C2SP tlog-tiles) as far as they are whole."""
    entries: list[bytes] = []
    at, unpack = 0, _LENGTH.unpack_from
    while at + 2 <= len(bundle):
        end = at + 2 + unpack(bundle, at)[0]
        if end > len(bundle):
            break
        entries.append(bundle[at + 2 : end])
        at = end
    return entries if at == len(bundle) else []
