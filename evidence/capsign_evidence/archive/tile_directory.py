"""A directory of files as C2SP tlog-tiles names them, with the agents' batches beside them, as an
archive: what `capsign log export` wrote, a mirror, or the cold files of an adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from capsign_evidence.archive.copying import (
    CHECKPOINT,
    POLICIES,
    copied_size,
    policy_path,
    read_hashes,
    summary_path,
    workload_of,
)
from capsign_evidence.archive.interface import ALL, ArchiveError, Batch
from capsign_evidence.archive.tile_files import LogFiles, TileFiles
from capsign_evidence.merkle import TILE_WIDTH, TreeDataError
from capsign_evidence.note import NoteError
from capsign_evidence.tiles import TileName, open_bundle

_INCIDENT = "This is an incident or a damaged disk: keep the directory as it is."


class FilesArchive:
    """A log as files, which may be elsewhere. Without a checkpoint, its size is where the last full
    tile of entries ends, as far as can be told: whoever reads one that is missing before hears so.
    """

    def __init__(self, files: LogFiles, size: int | None = None) -> None:
        """`size`: how many leaves there are, where that is known otherwise."""
        self._files = files
        self._size = size
        self._last: tuple[str, list[bytes]] = ("", [])
        """The bundle that was read last, by its path."""
        self._full = 0

    @property
    def first(self) -> int:
        return 0

    @property
    def origin(self) -> str:
        note = self.checkpoint()
        return note.partition(b"\n")[0].decode(errors="replace") if note else ""

    @property
    def size(self) -> int:
        if self._size is not None:
            return self._size
        if self.checkpoint() is not None:
            try:
                return copied_size(self._files)
            except NoteError as error:
                raise ArchiveError(f"The checkpoint: {error}.", _INCIDENT, damaged=True) from None
        return max(self._full_tiles(), self._behind_a_gap()) * TILE_WIDTH

    def checkpoint(self) -> bytes | None:
        return self._files.read(CHECKPOINT)

    def notes(self) -> list[bytes]:
        note = self.checkpoint()
        return [] if note is None else [note]

    def _extent(self) -> int:
        """Leaves up to which is read."""
        return self.size

    def entries(self, first: int, count: int) -> Iterator[bytes]:
        size = self._extent()
        last = min(first + count, size)
        while first < last:
            tile = _tile_of(first, size)
            start = tile.index * TILE_WIDTH
            found = self._bundle(tile)
            yield from found[first - start : min(last - start, tile.width)]
            first = start + TILE_WIDTH

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        return read_hashes(self._files, self._extent(), level, first, count)

    def batches(self, first_leaf: int, count: int = ALL) -> Iterator[Batch]:
        size = self._extent()
        last = min(first_leaf + count, size)
        for start in range(first_leaf // TILE_WIDTH * TILE_WIDTH, last, TILE_WIDTH):
            tile = _tile_of(start, size)
            for index, batch in self._batch_file(tile):
                if first_leaf <= index < last:
                    yield index, workload_of(self._bundle(tile)[index - start]), batch

    def summaries(self, first_tile: int) -> Iterator[tuple[int, bytes]]:
        for index in range(first_tile, self._extent() // TILE_WIDTH):
            data = self._files.read(summary_path(TileName(0, index)))
            if data is not None:
                yield index, data

    def policies(self) -> Iterator[bytes]:
        for name in self._files.names(POLICIES):
            data = self._files.read(f"{POLICIES}/{name}")
            if data is not None:
                yield data

    def policy(self, digest: bytes) -> bytes | None:
        data = self._files.read(policy_path(digest))
        return data if data is not None and sha256(data).digest() == digest else None

    def close(self) -> None:
        """Nothing is held."""

    def _bundle(self, tile: TileName) -> list[bytes]:
        path, known = self._last
        if path == tile.entries_path:
            return known
        data, most = self._files.read(tile.entries_path), tile.width
        if data is None and tile.width < TILE_WIDTH:
            data, most = self._files.read(TileName(0, tile.index).entries_path), TILE_WIDTH
        if data is None:
            first = tile.index * TILE_WIDTH
            raise ArchiveError(
                f"Leaves {first} to {first + tile.width - 1} are not in the directory.",
                "Bring its files back from a copy. What an adapter still has is read too where its "
                "store is named before the directory: STORE,DIRECTORY.",
                damaged=True,
            )
        try:
            found = open_bundle(data)
        except TreeDataError as error:
            raise ArchiveError(f"{tile.entries_path}: {error}.", _INCIDENT, damaged=True) from None
        if not tile.width <= len(found) <= most:
            text = f"{tile.entries_path} has {len(found)} entries and not {tile.width}."
            raise ArchiveError(text, _INCIDENT, damaged=True)
        self._last = tile.entries_path, found
        return found

    def _batch_file(self, tile: TileName) -> Iterator[tuple[int, bytes]]:
        path = tile.batches_path
        if tile.width < TILE_WIDTH and not self._files.has(path):
            path = TileName(0, tile.index).batches_path
        try:
            for index, batch in self._files.batches(path):
                if index // TILE_WIDTH != tile.index:
                    text = f"{path} has batches of other leaves."
                    raise ArchiveError(text, _INCIDENT, damaged=True)
                yield index, batch
        except TreeDataError as error:
            raise ArchiveError(f"{path}: {error}.", _INCIDENT, damaged=True) from None

    def _full_tiles(self) -> int:
        """How many full tiles there are from the first on; more may have come since."""
        while self._files.has(TileName(0, self._full).entries_path):
            self._full += 1
        return self._full

    def _behind_a_gap(self) -> int:
        """Where the full tiles end, whatever is missing between them; 0 if that cannot be told."""
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class DirectoryArchive(FilesArchive):
    """A directory. Raises ArchiveError if it holds no log."""

    def __init__(self, directory: Path, size: int | None = None) -> None:
        """`size`: how many leaves there are, where that is known otherwise."""
        self._held = TileFiles(directory)
        self._last_at_first: int | None = None
        super().__init__(self._held, size)
        if (
            size is None
            and self.checkpoint() is None
            and not (directory / "tile" / "entries").is_dir()
        ):
            raise ArchiveError(
                f"{directory} holds no log as files.",
                "Name the directory that `capsign log export` wrote, or one with cold files.",
            )

    def _behind_a_gap(self) -> int:
        """As there were at first; what comes later comes in order."""
        if self._last_at_first is None:
            self._last_at_first = max(self._held.bundles(), default=-1) + 1
        return self._last_at_first


def _tile_of(leaf: int, size: int) -> TileName:
    index = leaf // TILE_WIDTH
    return TileName(0, index, min(TILE_WIDTH, size - index * TILE_WIDTH))
