"""A store and the cold files that its first leaves were moved to, as one archive."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Self

from capsign_evidence.archive.interface import ALL, Archive, ArchiveError, Batch
from capsign_evidence.archive.tile_directory import DirectoryArchive
from capsign_evidence.archive.tile_files import TileFiles
from capsign_evidence.merkle import TILE_WIDTH
from capsign_evidence.tiles import TileName

PIECE = 32
"""Batches that are read from the store at once."""


class JoinedArchive:
    """What the store has no more is read from the cold files, everything else from the store.

    More may move while it is read: what the store gave counts if it still had the first of it
    afterwards, and is in the files if not.
    """

    def __init__(self, cold: TileFiles, store: Archive) -> None:
        """Raises ArchiveError unless the files reach as far as the store begins."""
        self._directory = cold.directory
        self._store = store
        held = store.first
        if held and not _reaches(cold, held):
            raise ArchiveError(
                f"The store begins with leaf {held}, and {cold.directory} does not reach that far.",
                "Name the directory that its first leaves were moved to, with all of its files.",
            )

    @property
    def origin(self) -> str:
        return self._store.origin

    @property
    def first(self) -> int:
        return 0

    @property
    def size(self) -> int:
        return self._store.size

    def checkpoint(self) -> bytes | None:
        return self._store.checkpoint()

    def notes(self) -> list[bytes]:
        return self._store.notes()

    def entries(self, first: int, count: int) -> Iterator[bytes]:
        last = first + count
        while first < last:
            held = self._store.first
            moved = first < held
            source = self._cold(held) if moved else self._store
            try:
                for entry in source.entries(first, (min(held, last) if moved else last) - first):
                    yield entry
                    first += 1
            except ArchiveError:
                if moved or self._store.first <= first:
                    raise
            if not moved and self._store.first <= first:
                return  # the log ends here

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        if level:
            return self._store.hashes(level, first, count)
        while True:
            held = self._store.first
            here = min(max(held, first), first + count)
            cold = self._cold(held).hashes(0, first, here - first)
            if len(cold) < here - first:
                raise ArchiveError(
                    f"Hashes of leaves {first} to {here - 1} are not in {self._directory}.",
                    "Restore its files from a copy: they are part of the log.",
                    damaged=True,
                )
            try:
                found = self._store.hashes(0, here, first + count - here)
            except ArchiveError:
                if self._store.first == held:
                    raise
                continue
            if self._store.first == held:
                return cold + found

    def batches(self, first_leaf: int, count: int = ALL) -> Iterator[Batch]:
        last = first_leaf + count
        while first_leaf < last:
            held = self._store.first
            if first_leaf < held:
                until = min(held, last)
                yield from self._cold(held).batches(first_leaf, until - first_leaf)
                first_leaf = until
                continue
            found = list(islice(self._store.batches(first_leaf, last - first_leaf), PIECE))
            if self._store.first > first_leaf:
                continue  # some may have moved before they were read
            yield from found
            if len(found) < PIECE:
                return
            first_leaf = found[-1][0] + 1

    def summaries(self, first_tile: int) -> Iterator[tuple[int, bytes]]:
        held = self._store.first
        yield from self._cold(held).summaries(first_tile)
        yield from self._store.summaries(max(first_tile, held // TILE_WIDTH))

    def policies(self) -> Iterator[bytes]:
        return self._store.policies()

    def policy(self, digest: bytes) -> bytes | None:
        return self._store.policy(digest)

    def close(self) -> None:
        self._store.close()

    def _cold(self, held: int) -> Archive:
        """The leaves before the first that the store holds: a file that is missing is an error."""
        return DirectoryArchive(self._directory, held)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _reaches(files: TileFiles, held: int) -> bool:
    """Whether the leaf before `held` is in the files: in a full tile, or in one of that width."""
    index = (held - 1) // TILE_WIDTH
    names = (TileName(0, index, width) for width in (TILE_WIDTH, held - index * TILE_WIDTH))
    return any(files.has(name.entries_path) for name in names)
