"""Files that others replace; they are read again when they have changed.

A mounted ConfigMap or Secret is updated by replacing a link, so links are followed and the file
behind them is examined.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_BYTES = 256 * 1024
"""Largest file, bytes."""


class FileError(Exception):
    """A file cannot be used. The text names it and never quotes its content."""


class WatchedFiles(Generic[T]):
    """The result of `read` for the bytes of these files. While nothing changes, a look costs one
    stat for each file. For any thread.
    """

    def __init__(self, paths: tuple[Path, ...], read: Callable[..., T]) -> None:
        self._paths = paths
        self._read = read
        self._seen: tuple[tuple[int, int, int, int], ...] = ()
        self._result: T | FileError = FileError("Nothing was read yet.")

    def current(self) -> T:
        """The result for the files as they are now. Raises FileError if they cannot be used now; an
        older result is never returned.
        """
        try:
            stamp = tuple(_stamp(path) for path in self._paths)
        except OSError as error:
            self._seen = ()
            raise FileError(
                f"The file {error.filename} cannot be read "
                f"({(error.strerror or 'unknown').lower()})."
            ) from None
        if stamp != self._seen:
            # The stamp was taken first: a file that changes while it is read is read once more.
            self._result, self._seen = self._fresh(), stamp
        if isinstance(self._result, FileError):
            raise FileError(str(self._result))
        return self._result

    def _fresh(self) -> T | FileError:
        try:
            return self._read(*(_bytes(path) for path in self._paths))
        except FileError as error:
            return error
        except OSError as error:
            return FileError(
                f"The file {error.filename} cannot be read "
                f"({(error.strerror or 'unknown').lower()})."
            )


def _stamp(path: Path) -> tuple[int, int, int, int]:
    state = path.stat()
    return state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size


def _bytes(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FileError(f"The file {path} is larger than {MAX_BYTES} bytes. Is it the right file?")
    return data
