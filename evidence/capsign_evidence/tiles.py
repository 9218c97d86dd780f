"""C2SP tlog-tiles: the log as immutable files, for export and mirrors."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from capsign_evidence.merkle import HASH_LEN, TILE_HEIGHT, TILE_WIDTH, TreeDataError
from capsign_evidence.proofs import HashReader

MAX_LEVEL = 63
"""Highest tile level the format can name."""

MAX_BUNDLE_ENTRY = (1 << 16) - 1
"""Longest entry in a bundle, bytes."""

MAX_INDEX = (1 << 55) - 1
"""Highest index of a tile in a log of 2**63 - 1 leaves."""

_BATCH = struct.Struct(">QI")

BATCH_HEAD = _BATCH.size
"""Bytes before each batch in a file of batches."""


@dataclass(frozen=True, slots=True)
class TileName:
    """Hashes `256 * index` to `256 * index + width - 1` of tile level `level`; width 256 is a full
    tile.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not (0 <= self.level <= MAX_LEVEL and self.index >= 0 and 1 <= self.width <= TILE_WIDTH):
            raise ValueError(
                "a tile has a level of 0 to 63, an index from 0 and a width of 1 to 256"
            )

    @property
    def path(self) -> str:
        """Path of the tile below the log's prefix, for example "tile/1/x001/x234/067.p/17"."""
        return f"tile/{self.level}/{_number(self.index)}{_partial(self.width)}"

    @property
    def entries_path(self) -> str:
        """Path of the entry bundle with the leaves of this tile of level 0."""
        if self.level:
            raise ValueError("entries belong to tiles of level 0")
        return f"tile/entries/{_number(self.index)}{_partial(self.width)}"

    @property
    def batches_path(self) -> str:
        """Path of the file with the agents' batches among the leaves of this tile of level 0. Ours,
        beside what C2SP names.
        """
        if self.level:
            raise ValueError("batches belong to tiles of level 0")
        return f"{BATCHES}/{_number(self.index)}{_partial(self.width)}"


BATCHES = "capsign/batches"
"""Where batches are, below the log's prefix."""

_PATH = re.compile(
    r"(tile/(?:[0-9]|[1-5][0-9]|6[0-3]|entries)|capsign/batches)/"
    r"((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?"
)


class FileKind(Enum):
    """What a path below the log's prefix names."""

    HASHES = "hashes"
    ENTRIES = "entries"
    BATCHES = "batches"


def parse_path(path: str) -> tuple[FileKind, TileName] | None:
    """What a path names; None if it is not the one spelling of anything."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    folder, number, width = found.groups()
    index = int(number.replace("x", "").replace("/", ""))
    level = int(folder.removeprefix("tile/")) if folder[-1].isdigit() else 0
    if index > MAX_INDEX or int(width or 1) >= TILE_WIDTH:
        return None
    kind = {"tile/entries": FileKind.ENTRIES, BATCHES: FileKind.BATCHES}.get(
        folder, FileKind.HASHES
    )
    name = TileName(level, index, int(width) if width else TILE_WIDTH)
    # A leading group of zeros would be another spelling of the same number.
    return (kind, name) if _number(index) == number else None


def _number(index: int) -> str:
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.append(f"x{index % 1000:03d}")
    return "/".join(reversed(parts))


def _partial(width: int) -> str:
    return "" if width == TILE_WIDTH else f".p/{width}"


def width_at(level: int, index: int, size: int) -> int:
    """Returns how many hashes a tile has in a tree of `size` leaves, 0 to 256."""
    return max(0, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH))


def tiles_of(size: int, since: int = 0) -> Iterator[TileName]:
    """Every tile of a tree of `size` leaves that a tree of `since` leaves has not, lowest level
    first.
    """
    level = 0
    while size >> (TILE_HEIGHT * level):
        count, done = size >> (TILE_HEIGHT * level), since >> (TILE_HEIGHT * level)
        if count > done:
            for index in range(done // TILE_WIDTH, (count + TILE_WIDTH - 1) // TILE_WIDTH):
                yield TileName(level, index, width_at(level, index, size))
        level += 1


def read_tile(hashes: HashReader, tile: TileName) -> bytes:
    """The bytes of a tile. Raises TreeDataError if the log does not hold all of it."""
    found = hashes(tile.level, tile.index * TILE_WIDTH, tile.width)
    if len(found) != tile.width or any(len(value) != HASH_LEN for value in found):
        raise TreeDataError(f"{tile.path} needs {tile.width} hashes, the log has {len(found)}")
    return b"".join(found)


def bundle(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: entries in order, each with its length before it as 16 bits big-endian."""
    if not 1 <= len(entries) <= TILE_WIDTH or any(
        len(entry) > MAX_BUNDLE_ENTRY for entry in entries
    ):
        raise ValueError("a bundle has 1 to 256 entries of at most 65535 bytes")
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def open_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle. Raises TreeDataError if it is cut or has too many."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        if at + 2 > len(data) or len(entries) == TILE_WIDTH:
            raise TreeDataError("an entry bundle is cut off or has more than 256 entries")
        (length,) = struct.unpack_from(">H", data, at)
        entry = data[at + 2 : at + 2 + length]
        if len(entry) != length:
            raise TreeDataError("an entry bundle is cut off within an entry")
        entries.append(entry)
        at += 2 + length
    return entries


def batch_file(batches: Iterable[tuple[int, bytes]]) -> bytes:
    """The agents' batches of a tile's leaves, ascending: for each its leaf index as 64 bits and its
    length as 32 bits, big-endian, then the batch as it was received.
    """
    return b"".join(batch_parts(batches))


def batch_parts(batches: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """What `batch_file` has, a batch at a time."""
    for index, batch in batches:
        yield _BATCH.pack(index, len(batch))
        yield batch


def open_batch_file(data: bytes) -> list[tuple[int, bytes]]:
    """The leaf index and the bytes of each batch. Raises TreeDataError if it is cut off or not in
    order.
    """
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        at += count
        return data[at - count : at]

    return list(read_batches(read, len(data)))


def read_batches(read: Callable[[int], bytes], size: int) -> Iterator[tuple[int, bytes]]:
    """As `open_batch_file`, of `size` bytes of which `read` gives the next so many, with one batch
    in memory at a time.
    """
    before = -1
    while head := read(BATCH_HEAD):
        size -= len(head)
        if len(head) < BATCH_HEAD:
            raise TreeDataError("a file of batches is cut off")
        index, length = _BATCH.unpack(head)
        batch = read(length) if length <= size else b""
        if len(batch) != length or index <= before:
            raise TreeDataError("a file of batches is cut off, or not in the order of its leaves")
        yield index, batch
        size, before = size - length, index
