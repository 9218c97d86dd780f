"""The directory of the journal: who may use it, and the folders of earlier lives in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from pathlib import Path

from capsign_agent.writable import obstacle

_LIFE = re.compile(r"[0-9]{13}-[0-9a-f]{32}")
"""The folder of a life. Nothing else in the directory is ours: `lost+found`, for example, where it
is a volume of its own.
"""


class JournalError(Exception):
    """The journal cannot be used; the text names the path and what to do."""


def look_at(directory: Path) -> None:
    """See what a journal there would meet, and change nothing. Raises JournalError."""
    hindrance = obstacle(directory)
    if hindrance:
        raise JournalError(
            f"The journal {directory} {hindrance}. Set journal.dir to a directory that the "
            f"agent owns."
        )
    with contextlib.suppress(FileNotFoundError):
        os.close(lock(directory, make=False))


def lock(directory: Path, *, make: bool = True) -> int:
    """Take the directory: the descriptor of its lock. Raises JournalError; FileNotFoundError if
    nothing is to be made and it is not there.
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


def unusable(directory: Path, error: OSError) -> JournalError:
    """What to tell when the directory cannot be used."""
    return JournalError(
        f"The journal {directory} cannot be used ({error.strerror}). It must be a directory "
        f"that the agent owns."
    )


def damaged(segment: Path) -> JournalError:
    """What to tell when a segment is not as it was written."""
    return JournalError(
        f"The journal segment {segment} is damaged. Keep it for the auditor and move it away."
    )
