"""A store and the cold files that its first leaves were moved to, as one archive."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from capsign_evidence.archive.interface import ALL, Archive, Batch
from capsign_evidence.merkle import TILE_WIDTH


class JoinedArchive:
    """What the store has no more is read from the cold files, everything else from the store."""

    def __init__(self, cold: Archive, store: Archive) -> None:
        self._cold = cold
        self._store = store

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
        # Asked before the cold files: what moves meanwhile is read from them, never missed.
        held = min(max(self._store.first, first), first + count)
        yield from self._cold.entries(first, held - first)
        yield from self._store.entries(held, first + count - held)

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        if level:
            return self._store.hashes(level, first, count)
        held = min(max(self._store.first, first), first + count)
        return [
            *self._cold.hashes(0, first, held - first),
            *self._store.hashes(0, held, first + count - held),
        ]

    def batches(self, first_leaf: int, count: int = ALL) -> Iterator[Batch]:
        held = min(max(self._store.first, first_leaf), first_leaf + count)
        yield from self._cold.batches(first_leaf, held - first_leaf)
        yield from self._store.batches(held, first_leaf + count - held)

    def summaries(self, first_tile: int) -> Iterator[tuple[int, bytes]]:
        boundary = self._store.first // TILE_WIDTH
        for index, summary in self._cold.summaries(first_tile):
            if index >= boundary:
                break
            yield index, summary
        yield from self._store.summaries(max(first_tile, boundary))

    def close(self) -> None:
        self._cold.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
