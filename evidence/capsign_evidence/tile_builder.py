"""Builds the tiles of C2SP tlog-tiles from leaf hashes, level by level, with one open tile of each
level in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from capsign_evidence.merkle import TILE_HEIGHT, TILE_WIDTH, complete_root
from capsign_evidence.tiles import TileName


class TileBuilder:
    """Grows from a number of leaves that fill whole tiles of level 0."""

    def __init__(self, size: int = 0, stored: Callable[[TileName], bytes] | None = None) -> None:
        """`stored` gives the partial tiles of that size, where there are any: their hashes one
        after another. Raises ValueError if the size does not end with a full tile.
        """
        if size % TILE_WIDTH:
            raise ValueError("a builder starts at the end of a full tile")
        self.size = size
        self._open: dict[int, list[bytes]] = {}
        level = 1
        while count := size >> (TILE_HEIGHT * level):
            width = count % TILE_WIDTH
            if width and stored is not None:
                data = stored(TileName(level, count // TILE_WIDTH, width))
                self._open[level] = [data[at : at + 32] for at in range(0, len(data), 32)]
            level += 1

    def add(self, hashes: Sequence[bytes]) -> Iterator[tuple[TileName, bytes]]:
        """The tiles that the next leaf hashes fill, lowest level first: of level 0 also one that
        they begin, which must be the last. `hashes` are one tile's at most.
        """
        index, width = self.size // TILE_WIDTH, len(hashes)
        if self.size % TILE_WIDTH or not 1 <= width <= TILE_WIDTH:
            raise ValueError("hashes come a tile at a time, and nothing after one that is not full")
        yield TileName(0, index, width), b"".join(hashes)
        self.size += width
        row, level = list(hashes), 0
        while len(row) == TILE_WIDTH:
            level += 1
            row = self._open.setdefault(level, [])
            row.append(complete_root(list(hashes)))
            if len(row) == TILE_WIDTH:
                number = (self.size >> (TILE_HEIGHT * level)) // TILE_WIDTH - 1
                yield TileName(level, number), b"".join(row)
                hashes, self._open[level] = row, []

    def partial(self) -> Iterator[tuple[TileName, bytes]]:
        """The tiles of level 1 and above that are not full, as a tree of this size has them."""
        for level, row in self._open.items():
            if row:
                number = (self.size >> (TILE_HEIGHT * level)) // TILE_WIDTH
                yield TileName(level, number, len(row)), b"".join(row)
