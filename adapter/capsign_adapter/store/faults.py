"""The reasons why a store cannot be used, each with a sentence for the operator.

Nothing was written when one of these is raised. All are subclasses of StoreUnavailableError, for
callers that need to know only that.
"""

from __future__ import annotations

import sqlite3

from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError

MAKE_ONE = "`capsign-adapter --config FILE provision` makes it"
"""What to do if there is no store yet, as part of a sentence."""


class StoreMissingError(StoreUnavailableError):
    """There is no store at that place. Never a reason to make a new one: the disk may be lost."""


class StoreExistsError(StoreUnavailableError):
    """Creation was asked for, and something is there already."""


class StoreTooNewError(StoreUnavailableError):
    """A newer release wrote this database."""


class StoreTooOldError(StoreUnavailableError):
    """A release wrote this database whose stored answers this one cannot read."""


class StoreOlderError(StoreUnavailableError):
    """An older release wrote this database, and `trial` changes nothing: a start would bring it to
    this release's schema.
    """


class StoreDamagedError(StoreUnavailableError):
    """What is stored contradicts itself. Stop every replica and compare with a backup and the last
    witnessed checkpoint.
    """


class StoreUnsafeError(StoreUnavailableError):
    """The database could be read or replaced by others, or would not be durable."""


_SQLITE_SENTENCES = {
    sqlite3.SQLITE_FULL: "The disk of the database is full. Free space; signing resumes by itself.",
    sqlite3.SQLITE_READONLY: "The database or its disk is read-only. "
    "Remount it or give write access.",
    sqlite3.SQLITE_IOERR: "The disk of the database gave an I/O error. See "
    "the kernel's log and replace the "
    "disk.",
    sqlite3.SQLITE_CANTOPEN: "The database file cannot be opened. See that its "
    "directory is mounted and belongs "
    "to this user.",
    sqlite3.SQLITE_BUSY: "Another process has held the database's lock for "
    "too long. Find it with `fuser` and "
    "see why it waits.",
    sqlite3.SQLITE_PERM: "The operating system denies access to the "
    "database file. Correct its owner.",
}

_SQLITE_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_PRIMARY = 0xFF
"""An extended SQLite result code has the primary code in its low byte."""


def primary_code(error: sqlite3.Error) -> int:
    """The primary SQLite result code, or 0 if the error did not come from SQLite."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY


def from_sqlite(error: sqlite3.Error, path: str) -> StoreUnavailableError:
    """Returns the store's error for an SQLite error outside COMMIT. The text names the path, and
    repeats no SQL and no value.
    """
    code = primary_code(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in _SQLITE_DAMAGE:
        sentence = (
            "The database file is damaged. Stop every replica; restore it from a backup, or "
            "copy it for examination first."
        )
        return StoreDamagedError(f"{path}: {sentence} ({name})")
    sentence = _SQLITE_SENTENCES.get(code, "SQLite refused the work.")
    return StoreUnavailableError(f"{path}: {sentence} ({name})")


def from_sqlite_commit(
    error: sqlite3.Error, path: str
) -> StoreUnavailableError | CommitUnknownError:
    """Returns the store's error for an SQLite error during COMMIT.

    SQLITE_FULL and SQLITE_BUSY come before the commit frame is complete in the write-ahead log, and
    recovery ignores an incomplete one: nothing was written. After an I/O error (a failed fsync
    above all) the frame may or may not be on the disk.
    """
    if primary_code(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY}:
        return from_sqlite(error, path)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return CommitUnknownError(
        f"{path}: the commit failed and may or may not be on the disk ({name})."
    )
