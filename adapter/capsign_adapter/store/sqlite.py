"""The store on SQLite: one file, write-ahead log, synchronous=FULL, any number of processes.

A writer holds the lock file, then BEGIN IMMEDIATE. COMMIT returns after the fsync of the
write-ahead log. A crash before the commit frame is complete leaves nothing; after it, everything.
Readers have connections of their own and never wait for a writer.
"""

from __future__ import annotations

import glob
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from capsign_wire import logs

from capsign_adapter.store import faults, migrate, schema
from capsign_adapter.store.engine import head_of
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.lockfile import LockFile
from capsign_adapter.store.relational import RelationalStore
from capsign_adapter.store.sqlite_files import (
    check_directory,
    check_files,
    lock_path,
    sync_directory,
)
from capsign_adapter.store.sqlite_rows import bound, insert_statement
from capsign_adapter.store.transaction import (
    READ_HEAD,
    Head,
    Row,
    Table,
)

Result = TypeVar("Result")

DIALECT: Final = "sqlite"

MAX_IDLE_READERS = 16
"""Most idle reading connections that are kept open."""

CHECKPOINT_PAGES = 4_000
"""Pages in the write-ahead log before a commit copies them into the database: 16 MiB, so that it
happens rarely.
"""

LOG_BYTES = CHECKPOINT_PAGES * 4096
"""The write-ahead log is made this long at once: the fsync of a commit that need not lengthen its
file takes half the time.
"""

ROOMY_BYTES = 16 * LOG_BYTES
"""Free bytes on the disk, 256 MiB, from which on the write-ahead log is made long at once."""

CACHE = "PRAGMA cache_size = -16384"
"""16 MiB of pages for each connection."""


class _SqliteTransaction:
    """Statements on one connection; the begin and end are its owner's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def one(self, sql: str, *parameters: Any) -> Row | None:
        row: Row | None = self.connection.execute(sql, parameters).fetchone()
        return row

    def all(self, sql: str, *parameters: Any) -> list[Row]:
        return self.connection.execute(sql, parameters).fetchall()

    def run(self, sql: str, *parameters: Any) -> int:
        return self.connection.execute(sql, parameters).rowcount

    def send(self, sql: str, *parameters: Any) -> None:
        self.connection.execute(sql, parameters)

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        return self.connection.executemany(insert_statement(table), bound(table, rows)).rowcount


class SqliteStore(RelationalStore[_SqliteTransaction]):
    """Opens an existing database file; `create_sqlite` makes one."""

    def __init__(
        self,
        path: Path,
        *,
        trial: bool = False,
        connection: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        """`trial`: change nothing; raises StoreOlderError if a start would migrate the schema.
        `connection`: the class of its connections.
        """
        super().__init__(DIALECT, str(path))
        self._path, self._name = path, str(path)
        self._connection = connection
        self._identity = check_files(path)
        self._readers: list[_SqliteTransaction] = []
        try:
            self._lock = LockFile(lock_path(path))
        except OSError as error:
            raise StoreUnavailableError(
                f"{lock_path(path)}: {error.strerror}. The store's directory must be writable."
            ) from None
        try:
            self._writer = _connect(path, connection)
            self._open(trial=trial)
        except sqlite3.Error as error:
            self.close()
            raise faults.from_sqlite(error, self._place) from error
        except BaseException:
            self.close()
            raise

    def size_bytes(self) -> int:
        files = self._path.parent.glob(f"{glob.escape(self._path.name)}*")
        return sum(file.stat().st_size for file in files if file.is_file())

    def _open(self, *, trial: bool) -> None:
        tables = {
            row[0]
            for row in self._writer.all("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if "schema_migrations" not in tables:
            raise faults.StoreDamagedError(
                f"{self._path} is not a capsign database: it has no schema. Restore the "
                f"right file; nothing was changed."
            )
        self.bring_up_to_date(_now_ms(), trial=trial)
        if trial:
            return
        with self._lock:
            _lengthen_log(self._writer, self._path)

    def _turn(self) -> LockFile:
        return self._lock

    def _begin(self) -> tuple[_SqliteTransaction, Head]:
        self._check_same_file()
        self._writer.run("BEGIN IMMEDIATE")
        return self._writer, head_of(self._writer.one(READ_HEAD))

    def _commit(self, writer: _SqliteTransaction) -> None:
        try:
            writer.run("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise faults.from_sqlite_commit(error, self._place) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        """End an open transaction. A connection on which that fails is replaced."""
        connection = self._writer.connection
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            connection.close()
            self._writer = _connect(self._path, self._connection)

    def _borrow(self) -> _SqliteTransaction:
        try:
            return self._readers.pop()
        except IndexError:
            return self._connect_reader()

    def _give_back(self, reader: _SqliteTransaction) -> None:
        if len(self._readers) < MAX_IDLE_READERS and not self._closed.is_set():
            self._readers.append(reader)
        else:
            reader.connection.close()

    def _discard(self, reader: _SqliteTransaction, error: BaseException) -> bool:
        reader.connection.close()
        return False

    def _fault_of(self, error: BaseException) -> StoreUnavailableError | None:
        return faults.from_sqlite(error, self._place) if isinstance(error, sqlite3.Error) else None

    def _connect_reader(self) -> _SqliteTransaction:
        self._check_same_file()
        try:
            reader = _connect(self._path, self._connection)
            reader.run("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise faults.from_sqlite(error, str(self._path)) from error
        return reader

    def _check_same_file(self) -> None:
        """Check that the path still names the open file: one that was moved away would go on
        accepting writes that nobody ever finds.
        """
        try:
            # a plain call: this is before each commit, and a Path takes half as long again
            seen = os.stat(self._name)  # noqa: PTH116
        except OSError as error:
            raise faults.StoreMissingError(
                f"{self._path}: {error.strerror} while it was in use. Put the file back "
                f"or restart on a restored one."
            ) from None
        if (seen.st_dev, seen.st_ino) != self._identity:
            raise faults.StoreMissingError(
                f"{self._path} was replaced while it was in use. Restart every replica on "
                f"the right file."
            )

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        with self._lock:
            writer = getattr(self, "_writer", None)
            if writer is not None:
                writer.connection.close()
            while self._readers:
                self._readers.pop().connection.close()
        self._lock.close()


def create_sqlite(path: Path, *, through: int = schema.LATEST) -> None:
    """Create the database of a new deployment. Raises StoreExistsError if there is a file already.

    It is built under another name and linked into place when it is complete: a crash leaves either
    nothing or a whole database. `through`: only up to the migration with this number, as an earlier
    release did.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_directory(path)
        if path.exists():
            raise faults.StoreExistsError(
                f"{path} exists already. Open it, or move it away if it is no longer wanted."
            )
        left = [
            name for name in (lock_path(path), path.with_name(f"{path.name}-wal")) if name.exists()
        ]
        if left:
            # They are made when a store is opened and outlive it: this is a deployment that lost
            # its database, not a new one.
            raise faults.StoreExistsError(
                f"{left[0]} is left from a store that is gone. Restore it; to begin anew, "
                f"remove that too, and {faults.MAKE_ONE}."
            )
        draft = path.with_name(f".{path.name}.new-{os.getpid()}-{threading.get_ident()}")
        draft.touch(mode=0o600, exist_ok=False)
        try:
            _build(draft, through)
            os.link(draft, path)
        except FileExistsError:
            raise faults.StoreExistsError(
                f"{path} was made by another process just now. Open it."
            ) from None
        finally:
            draft.unlink()
        sync_directory(path.parent)
    except sqlite3.Error as error:
        raise faults.from_sqlite(error, str(path)) from error
    except OSError as error:
        raise StoreUnavailableError(
            f"{path}: {error.strerror}. See that its directory is writable by this user."
        ) from error


def _build(path: Path, through: int) -> None:
    writer = _connect(path)
    try:
        writer.run("BEGIN IMMEDIATE")
        migrate.create(writer, DIALECT, _now_ms(), through=through)
        writer.run("COMMIT")
    finally:
        # The last connection's close copies the write-ahead log into the file and removes it.
        writer.connection.close()


def _connect(path: Path, kind: type[sqlite3.Connection] = sqlite3.Connection) -> _SqliteTransaction:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        timeout=5.0,
        check_same_thread=False,
        factory=kind,
    )
    transaction = _SqliteTransaction(connection)
    try:
        if transaction.one("PRAGMA journal_mode = WAL") != ("wal",):
            raise faults.StoreUnsafeError(
                f"{path}: this file system cannot hold a write-ahead log. Use a local one."
            )
        transaction.run("PRAGMA synchronous = FULL")
        if transaction.one("PRAGMA synchronous") != (2,):
            raise faults.StoreUnsafeError(f"{path}: SQLite did not accept synchronous=FULL.")
        transaction.run(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        transaction.run(CACHE)
        transaction.run("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return transaction


def _lengthen_log(writer: _SqliteTransaction, path: Path) -> None:
    """Write as much as the write-ahead log may hold and roll it back: frames without a commit are
    overwritten later.

    A crash at any line leaves a log whose last commit is the one before. On a small disk this is
    not done, since the database needs the space: the log grows as it is used.
    """
    disk = os.statvfs(path)
    if (
        disk.f_bavail * disk.f_frsize < ROOMY_BYTES
        or path.with_name(f"{path.name}-wal").stat().st_size >= LOG_BYTES
    ):
        return
    # what does not fit into the cache goes into the log before there is a commit
    writer.run("PRAGMA cache_size = 16")
    try:
        writer.run("BEGIN IMMEDIATE")
        writer.run("CREATE TABLE filler (bytes BLOB)")
        writer.run("INSERT INTO filler VALUES (zeroblob(?))", LOG_BYTES)
    except sqlite3.Error as error:
        logs.warning("store.log_not_lengthened", error=error.sqlite_errorname)
    finally:
        if writer.connection.in_transaction:
            writer.run("ROLLBACK")
        writer.run(CACHE)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
