"""The files of a log in a directory: written so that each is there whole or not at all, and never
changed once it is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from capsign_evidence.archive.interface import ArchiveError
from capsign_evidence.merkle import TILE_WIDTH
from capsign_evidence.tiles import parse_path, read_batches

TEMPORARY = ".partly-written"
"""How the names of files end that are being written. One that a crash left behind is never read."""


class LogFiles(Protocol):
    """Files of a log by their paths, wherever they are."""

    def read(self, path: str) -> bytes | None:
        """A file's content, None if there is none. Raises ArchiveError."""

    def has(self, path: str) -> bool:
        """Whether there is such a file."""

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder."""

    def batches(self, path: str) -> Iterator[tuple[int, bytes]]:
        """The batches of a file of them. Raises ArchiveError, TreeDataError."""


class TileFiles:
    """A directory that is laid out as C2SP tlog-tiles says."""

    def __init__(self, directory: Path, *, durable: bool = False) -> None:
        """`durable`: a file is on the disk, with the directories that name it, before `write`
        returns.
        """
        self.directory = directory
        self._durable = durable

    def read(self, path: str) -> bytes | None:
        """A file's content; None if there is none, or nothing in it: no file of a log is empty.
        Raises ArchiveError if it cannot be read.
        """
        try:
            return (self.directory / path).read_bytes() or None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failed(self.directory / path, error) from error

    def has(self, path: str) -> bool:
        """Whether there is such a file, with anything in it."""
        target = self.directory / path
        return target.is_file() and target.stat().st_size > 0

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder, in order, without those that are being written.
        Raises ArchiveError if it cannot be read.
        """
        try:
            found = [one.name for one in (self.directory / folder).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _failed(self.directory / folder, error) from error
        return sorted(name for name in found if not name.endswith(TEMPORARY))

    def bundles(self) -> Iterator[int]:
        """The numbers of all full tiles of level 0 whose entries are there, in no order."""
        for place in (self.directory / "tile" / "entries").rglob("[0-9][0-9][0-9]"):
            file = parse_path(place.relative_to(self.directory).as_posix())
            if file is None or file[1].width < TILE_WIDTH:
                continue
            if place.is_file() and place.stat().st_size:
                yield file[1].index

    def holds(self, path: str, parts: Iterable[bytes]) -> bool | None:
        """Whether a file's content is these parts one after another; None if there is none. Raises
        ArchiveError if it cannot be read.
        """
        if not self.has(path):
            return None
        try:
            with (self.directory / path).open("rb") as file:
                return all(file.read(len(part)) == part for part in parts) and not file.read(1)
        except OSError as error:
            raise _failed(self.directory / path, error) from error

    def batches(self, path: str) -> Iterator[tuple[int, bytes]]:
        """The batches of a file of them, one in memory at a time; none if there is no such file.
        Raises ArchiveError if it cannot be read, TreeDataError if it is cut off or not in order.
        """
        try:
            with (self.directory / path).open("rb") as file:
                yield from read_batches(file.read, os.fstat(file.fileno()).st_size)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _failed(self.directory / path, error) from error

    def write(self, path: str, data: bytes) -> None:
        """Write a file that never changes: one that is there must have the same content. Raises
        ArchiveError, damaged if it has not.
        """
        self.write_parts(path, (data,))

    def write_parts(self, path: str, parts: Iterable[bytes]) -> None:
        """As `write`, of content that comes in parts and need not fit into memory."""
        same = self.holds(path, parts)
        if same is None:
            self._write_whole(path, parts)
        elif not same:
            raise ArchiveError(
                f"{self.directory / path} has another content than the log.",
                "This is an incident, or a directory of another log: keep both as they are.",
                damaged=True,
            )
        else:
            self.settle(path)

    def settle(self, path: str) -> None:
        """A file that is there is on the disk, if that is asked of all, whoever wrote it. Raises
        ArchiveError.
        """
        if self._durable:
            self._sync(self.directory / path, os.O_RDONLY)
            self._settle(self.directory / path)

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, in the place of one that is there. A crash leaves the old one or the
        new one.
        """
        self._write_whole(path, (data,))

    def _write_whole(self, path: str, parts: Iterable[bytes]) -> None:
        target = self.directory / path
        # Random, and never one that is there: every container's process may have the same number.
        fresh = target.with_name(f"{target.name}.{os.urandom(8).hex()}{TEMPORARY}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("xb") as file:
                file.writelines(parts)
                if self._durable:
                    file.flush()
                    os.fsync(file.fileno())
            fresh.replace(target)
        except OSError as error:
            _remove(fresh)
            raise _failed(target, error) from error
        except BaseException:
            _remove(fresh)
            raise
        if self._durable:
            self._settle(target)

    def _settle(self, target: Path) -> None:
        """The names that lead to a file are on the disk."""
        folder = target
        while folder != self.directory:
            folder = folder.parent
            self._sync(folder, os.O_RDONLY | os.O_DIRECTORY)

    def _sync(self, path: Path, flags: int) -> None:
        try:
            descriptor = os.open(path, flags)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _failed(path, error) from error


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _failed(path: Path, error: OSError) -> ArchiveError:
    why = (error.strerror or type(error).__name__).lower()
    return ArchiveError(
        f"{path} cannot be read or written ({why}).", "See to its mode and to room on the disk."
    )
