"""The directory of the journal: its lock, and the folders of earlier lives in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from pathlib import Path

from capsign_agent.writable import obstacle

_LIFE = re.compile(r"[0-9]{13}-[0-9a-f]{32}")
"""Name of the folder of a life. Other names are not ours, for example `lost+found` on a volume."""


class JournalError(Exception):
    """The journal cannot be used. The text names the path and the fix."""


class JournalGoneError(JournalError):
    """A segment that was written is not there any more: its records are lost."""


def look_at(directory: Path) -> None:
    """Check whether a journal could be kept here, without changing anything. Raises
    JournalError.
    """
    hindrance = obstacle(directory)
    if hindrance:
        raise JournalError(
            f"The journal {directory} {hindrance}. Set journal.dir to a directory that the "
            f"agent owns."
        )
    with contextlib.suppress(FileNotFoundError):
        os.close(lock(directory, make=False))


def lock(directory: Path, *, make: bool = True) -> int:
    """Lock the directory; returns the descriptor of the lock. Raises JournalError;
    FileNotFoundError if nothing is to be made and it does not exist.
    """
    try:
        if make:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
        descriptor = os.open(directory / ".lock", flags, 0o600)
    except OSError as error:
        if not make and isinstance(error, FileNotFoundError):
            raise
        raise unusable(directory, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise JournalError(
            f"Another agent uses the journal {directory}. Give each agent a directory of its own."
        ) from None
    return descriptor


def lives(directory: Path) -> list[Path]:
    """The folders of earlier lives, oldest first."""
    return sorted(one for one in directory.iterdir() if _LIFE.fullmatch(one.name) and one.is_dir())


def boot_of(folder: Path) -> bytes:
    """The boot id of the life whose folder this is."""
    return bytes.fromhex(folder.name.partition("-")[2])


def unusable(directory: Path, error: OSError) -> JournalError:
    """The error for a directory that cannot be used."""
    return JournalError(
        f"The journal {directory} cannot be used ({error.strerror}). It must be a directory "
        f"that the agent owns."
    )


def damaged(segment: Path) -> JournalError:
    """The error for a segment that is not as it was written."""
    return JournalError(
        f"The journal segment {segment} is damaged. Keep it for the auditor and move it away."
    )
