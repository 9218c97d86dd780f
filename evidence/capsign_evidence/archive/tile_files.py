"""The files of a log in a directory: written so that each is there whole or not at all, and never
changed once it is there.
"""

from __future__ import annotations

import os
from pathlib import Path

from capsign_evidence.archive.interface import ArchiveError

TEMPORARY = ".partly-written"
"""How the names of files end that are being written. One that was left behind is written anew."""


class TileFiles:
    """A directory that is laid out as C2SP tlog-tiles says."""

    def __init__(self, directory: Path, *, durable: bool = False) -> None:
        """`durable`: a file is on the disk, with the directories that name it, before `write`
        returns.
        """
        self.directory = directory
        self._durable = durable

    def read(self, path: str) -> bytes | None:
        """A file's content; None if there is none. Raises ArchiveError if it cannot be read."""
        try:
            return (self.directory / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failed(self.directory / path, error) from error

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return (self.directory / path).is_file()

    def write(self, path: str, data: bytes) -> None:
        """Write a file that never changes: one that is there must have the same content. Raises
        ArchiveError, damaged if it has not.
        """
        known = self.read(path)
        if known is None:
            self.replace(path, data)
        elif known != data:
            raise ArchiveError(
                f"{self.directory / path} has another content than the log.",
                "This is an incident, or a directory of another log: keep both as they are.",
                damaged=True,
            )
        elif self._durable:
            self._settle(self.directory / path)

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, in the place of one that is there. A crash leaves the old one or the
        new one.
        """
        target = self.directory / path
        fresh = target.with_name(f"{target.name}.{os.getpid()}{TEMPORARY}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                file.write(data)
                if self._durable:
                    file.flush()
                    os.fsync(file.fileno())
            fresh.replace(target)
        except OSError as error:
            raise _failed(target, error) from error
        if self._durable:
            self._settle(target)

    def _settle(self, target: Path) -> None:
        """The names that lead to a file are on the disk."""
        folder = target
        while folder != self.directory:
            folder = folder.parent
            try:
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise _failed(folder, error) from error


def _failed(path: Path, error: OSError) -> ArchiveError:
    why = (error.strerror or type(error).__name__).lower()
    return ArchiveError(
        f"{path} cannot be read or written ({why}).", "See to its mode and to room on the disk."
    )
