"""The files of an SQLite store, and the checks that they must pass before they are used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from capsign_adapter.store import faults
from capsign_adapter.store.errors import StoreUnavailableError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def lock_path(path: Path) -> Path:
    """The lock file that belongs to a database file."""
    return path.with_name(f"{path.name}.lock")


def check_files(path: Path) -> tuple[int, int]:
    """Returns device and inode of the database. Raises StoreMissingError, StoreUnsafeError."""
    try:
        seen = path.stat()
    except OSError as error:
        raise faults.StoreMissingError(
            f"{path}: {error.strerror}. If this deployment had a database, find it or "
            f"restore it; if it is new, "
            f"{faults.MAKE_ONE}."
        ) from None
    check_directory(path)
    if not stat.S_ISREG(seen.st_mode):
        raise faults.StoreUnsafeError(f"{path} is not a regular file.")
    if seen.st_mode & _OTHERS:
        raise faults.StoreUnsafeError(
            f"{path} is open to others (mode {stat.S_IMODE(seen.st_mode):04o}). Run "
            f"`chmod 600` on it."
        )
    if not seen.st_size:
        text = (
            f"{path} is empty. Restore a backup; remove the file only if nothing was ever "
            f"signed: then {faults.MAKE_ONE}."
        )
        raise faults.StoreDamagedError(text)
    if not os.access(path, os.W_OK):
        raise StoreUnavailableError(
            f"{path} is not writable by this user. Correct its owner or remount its disk."
        )
    return seen.st_dev, seen.st_ino


def check_directory(path: Path) -> None:
    """Raises StoreUnsafeError if others can reach the directory of this file."""
    mode = path.parent.stat().st_mode
    if mode & _OTHERS:
        raise faults.StoreUnsafeError(
            f"{path.parent} is open to others (mode {stat.S_IMODE(mode):04o}). Run `chmod "
            f"700` on it."
        )


def sync_directory(directory: Path) -> None:
    """Make new links in the directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
