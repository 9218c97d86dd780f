"""A SQLite store, or a copy of one, as an archive. It is opened read-only.

A copy is never changed: without a write-ahead log beside it the file is opened as immutable, so
that not even an empty log is made next to evidence. Where there is a log, the store may be in use,
or the copy was taken from one in use: it is read with it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from capsign_evidence.archive.interface import ArchiveError
from capsign_evidence.archive.relational import RelationalArchive, Row

WAIT_S = 5.0
"""Longest wait for a lock, seconds. Readers wait for no writer, only for a recovery of the log."""


class SqliteArchive(RelationalArchive):
    """The store in `path`. Raises ArchiveError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._immutable = not (self._log.exists() and self._log.stat().st_size)
        mode = "immutable=1" if self._immutable else "mode=ro"
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, timeout=WAIT_S
            )
            # Text is read as bytes: entries that were changed by SQL may have become text.
            self._connection.text_factory = bytes
            names = self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        self._tables = frozenset(row[0].decode() for row in names)
        if not {"log_segments", "audit_batches"} <= self._tables:
            self.close()
            raise ArchiveError(f"{path} is a database, and not a store.", "Name the store's file.")

    def close(self) -> None:
        self._connection.close()

    def _rows(self, sql: str, *parameters: Any) -> list[Row]:
        try:
            found = self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        if self._immutable and self._log.exists() and self._log.stat().st_size:
            raise ArchiveError(
                f"An adapter has begun to write {self._path} while it was read as a copy.",
                "Run it again.",
            )
        return found

    def _unreadable(self, error: sqlite3.Error) -> ArchiveError:
        damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in {
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
        }
        return ArchiveError(
            f"{self._path} cannot be read: {error}.",
            "Keep it as it is and take another copy."
            if damaged
            else "Copy the store's file and the one that ends in -wal into a directory that you "
            "can write to, and read that.",
            damaged=damaged,
        )
