"""The store on PostgreSQL: replicas take turns on the control row, which every writer locks first
and writes last.

A commit is three round trips: begin and lock; the rows; the control row and COMMIT. A connection
lost before the third means that nothing was written. Lost in it, nobody can say:
CommitUnknownError. READ COMMITTED is enough, for every statement after the lock sees all that
earlier holders of the lock committed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from capsign_adapter.store import faults, log, migrate, schema
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.postgres_connection import Link, SilentError, Target, from_postgres
from capsign_adapter.store.relational import RelationalStore
from capsign_adapter.store.transaction import (
    READ_HEAD,
    WRITE_HEAD,
    Head,
    Reader,
    Row,
    Table,
    Transaction,
)

Result = TypeVar("Result")

DIALECT: Final = "postgresql"

MAX_IDLE_READERS = 8
"""Reading connections kept open."""

MAX_READERS = 32
"""Reading connections of one process; more threads than that wait for a turn."""

WAIT_S = 10.0
"""Longest wait for a turn inside this process, seconds."""

_BEGIN_AND_LOCK = f"BEGIN; {READ_HEAD} FOR UPDATE"
_BEGIN_SNAPSHOT = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SIZE = """SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
    WHERE relkind = 'r' AND relnamespace =
        (SELECT relnamespace FROM pg_class WHERE oid = 'schema_migrations'::regclass)"""
"""The tables of our schema with their indexes."""
_CREATION_LOCK = 0x6361707369676E
"""Number of the advisory lock under which a deployment is made: "capsign" in ASCII."""


@cache
def _translated(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()


@cache
def _insert_statement(table: Table) -> bytes:
    types = {"int": "bigint", "blob": "bytea", "text": "text"}
    arrays = ", ".join(f"%b::{types[kind]}[]" for _, kind in table.columns)
    source = f"SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING"  # noqa: S608 - constants
    return f"INSERT INTO {table.name} ({table.column_list}) {source}".encode()


class _PostgresTransaction:
    """Statements on one connection. What is only sent waits for the next statement that answers,
    and travels with it.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: list[tuple[bytes, Sequence[Any]]] = []

    def one(self, sql: str, *parameters: Any) -> Row | None:
        return self._ask(_translated(sql), parameters).fetchone()

    def all(self, sql: str, *parameters: Any) -> list[Row]:
        return self._ask(_translated(sql), parameters).fetchall()

    def run(self, sql: str, *parameters: Any) -> int:
        return self._ask(_translated(sql), parameters).rowcount

    def send(self, sql: str, *parameters: Any) -> None:
        self._waiting.append((_translated(sql), parameters))

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        columns = [list(column) for column in zip(*rows, strict=True)]
        return self._ask(_insert_statement(table), columns).rowcount

    def commit(self) -> str:
        """Send what waits, and COMMIT with it; the server's answer: "COMMIT", or "ROLLBACK" where
        the transaction had failed.
        """
        return self._ask(b"COMMIT", ()).statusmessage or ""

    def _ask(self, sql: bytes, parameters: Sequence[Any]) -> psycopg.Cursor[Row]:
        if not self._waiting:
            return self._link.execute(sql, parameters)
        waiting, self._waiting = self._waiting, []
        with self._link.pipeline():
            for statement, values in waiting:
                self._link.execute(statement, values)
            return self._link.execute(sql, parameters)


class PostgresStore(RelationalStore):
    """Open an existing deployment. `create_postgres` makes one. Connections are made anew when they
    break.
    """

    def __init__(self, url: str, password_file: Path | None = None, *, trial: bool = False) -> None:
        """`trial`: change nothing. Raises StoreOlderError then, where a start would bring the
        schema up to date.
        """
        super().__init__()
        self._target = Target.parse(url, password_file)
        self._turn = threading.Lock()
        self._reading = threading.BoundedSemaphore(MAX_READERS)
        self._writer: Link | None = None
        self._readers: list[Link] = []
        self._closed = threading.Event()
        try:
            self._upgrade(trial=trial)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return DIALECT

    def __repr__(self) -> str:
        return f"PostgresStore({self._target})"

    def clock_ms(self) -> int:
        row = self._read(
            lambda tx: tx.one("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        )
        assert row is not None
        return int(row[0])

    def size_bytes(self) -> int:
        row = self._read(lambda tx: tx.one(_SIZE))
        assert row is not None
        return int(row[0])

    def _upgrade(self, *, trial: bool) -> None:
        if not self._read(_has_schema):
            raise faults.StoreMissingError(
                f"{self._target} holds no capsign schema. If this deployment had one, "
                f"restore it; if it is new, "
                f"{faults.MAKE_ONE}."
            )
        applied = self._read(migrate.check_version)
        if trial:
            migrate.demand_current(applied)
        if applied < schema.LATEST:
            self._write(
                lambda tx, _: migrate.upgrade(tx, DIALECT, migrate.check_version(tx), _now_ms())
            )
        self._write(lambda tx, head: log.check_tail(tx, head))

    def _write(self, work: Callable[[Transaction, Head], Result]) -> Result:
        if not self._turn.acquire(timeout=WAIT_S):
            raise StoreUnavailableError(
                f"{self._target}: the writers of this process waited {WAIT_S:g} s for their turn."
            )
        try:
            self._check_open()
            link, head = self._begin()
            tx = _PostgresTransaction(link)
            try:
                result = self._work(tx, head, work)
            except BaseException as error:
                self._roll_back(link)
                if isinstance(error, psycopg.Error):
                    raise from_postgres(error, self._target) from error
                raise
            self._commit(link, tx)
            return result
        finally:
            self._turn.release()

    def _begin(self) -> tuple[Link, Head]:
        """A connection whose transaction holds the control row. One that died while idle is
        replaced: nothing was asked of it.
        """
        while True:
            link, idle = self._writer, self._writer is not None
            try:
                if link is None:
                    link = self._writer = self._target.connect()
                cursor = link.execute(_BEGIN_AND_LOCK.encode())
                cursor.nextset()
                row = cursor.fetchone()
            except psycopg.Error as error:
                lost = link is None or link.closed
                self._roll_back(link)
                if idle and lost and not isinstance(error, SilentError):
                    continue
                raise from_postgres(error, self._target) from error
            except BaseException:
                self._roll_back(link)
                raise
            if row is None:
                self._roll_back(link)
                raise faults.StoreDamagedError(
                    "The control row is gone. Stop every replica; restore a backup."
                )
            return link, Head(row[0], row[1], row[2], bytes(row[3]))

    @staticmethod
    def _work(
        tx: _PostgresTransaction, head: Head, work: Callable[[Transaction, Head], Result]
    ) -> Result:
        before = (head.epoch, head.watermark_ms, head.tree_size)
        result = work(tx, head)
        if (head.epoch, head.watermark_ms, head.tree_size) != before:
            tx.send(WRITE_HEAD, head.epoch, head.watermark_ms, head.tree_size, head.frontier)
        return result

    def _commit(self, link: Link, tx: _PostgresTransaction) -> None:
        link.warned = False
        try:
            answer = tx.commit()
        except psycopg.Error as error:
            # An error that leaves the session alive came from the server, which has rolled back.
            # Otherwise the answer was lost.
            refused = not link.closed and error.sqlstate is not None
            self._roll_back(link)
            if refused:
                raise from_postgres(error, self._target) from error
            raise CommitUnknownError(
                f"{self._target}: the connection broke during commit."
            ) from error
        except BaseException:
            self._drop_writer()
            raise
        if answer != "COMMIT":
            raise StoreUnavailableError(
                f"{self._target}: the server rolled the transaction back ({answer})."
            )
        if link.warned:
            # It gave up waiting for its synchronous standby (SyncRepWaitForLSN): after a failover
            # this would never have happened.
            raise CommitUnknownError(
                f"{self._target}: the server committed, and no standby has confirmed it."
            )

    def _roll_back(self, link: Link | None) -> None:
        """Leave the connection without a transaction, or without a connection."""
        if link is None:
            return
        try:
            if not link.closed and link.info.transaction_status != TransactionStatus.IDLE:
                link.execute(b"ROLLBACK")
        except psycopg.Error:
            self._drop_writer()
        if link.closed:
            self._drop_writer()

    def _drop_writer(self) -> None:
        link, self._writer = self._writer, None
        if link is not None:
            link.close()

    def _read(self, work: Callable[[Reader], Result], *, snapshot: bool = False) -> Result:
        if not self._reading.acquire(timeout=WAIT_S):
            raise StoreUnavailableError(
                f"{self._target}: the readers of this process waited {WAIT_S:g} s for a connection."
            )
        try:
            while True:
                self._check_open()
                link, idle = self._borrow()
                try:
                    result = _read_with(link, work, snapshot)
                except BaseException as error:
                    lost = link.closed
                    link.close()
                    if isinstance(error, psycopg.Error):
                        # Reading twice is harmless; every idle connection of a restarted server is
                        # dead. One that is silent is not: the next would be too, and each takes its
                        # whole wait.
                        if idle and lost and not isinstance(error, SilentError):
                            continue
                        raise from_postgres(error, self._target) from error
                    raise
                self._give_back(link)
                return result
        finally:
            self._reading.release()

    def _borrow(self) -> tuple[Link, bool]:
        try:
            return self._readers.pop(), True
        except IndexError:
            pass
        try:
            return self._target.connect(), False
        except psycopg.Error as error:
            raise from_postgres(error, self._target) from error

    def _give_back(self, link: Link) -> None:
        if len(self._readers) < MAX_IDLE_READERS and not self._closed.is_set():
            self._readers.append(link)
        else:
            link.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise StoreUnavailableError(f"{self._target}: the store was closed.")

    def close(self) -> None:
        self._closed.set()
        with self._turn:
            self._drop_writer()
        while self._readers:
            self._readers.pop().close()


def _read_with(link: Link, work: Callable[[Reader], Result], snapshot: bool) -> Result:
    if snapshot:
        link.execute(_BEGIN_SNAPSHOT.encode())
    result = work(_PostgresTransaction(link))
    if snapshot:
        link.execute(b"COMMIT")
    return result


def _has_schema(tx: Reader) -> bool:
    row = tx.one("SELECT to_regclass('schema_migrations') IS NOT NULL")
    return bool(row and row[0])


def create_postgres(url: str, password_file: Path | None = None) -> None:
    """Make the tables of a new deployment in an existing, empty database. Raises StoreExistsError
    if they are there.
    """
    target = Target.parse(url, password_file)
    try:
        link = target.connect()
        try:
            tx = _PostgresTransaction(link)
            tx.run("BEGIN")
            tx.one("SELECT pg_advisory_xact_lock(?)", _CREATION_LOCK)
            if _has_schema(tx):
                raise faults.StoreExistsError(f"{target} holds a capsign schema already. Open it.")
            migrate.create(tx, DIALECT, _now_ms())
            tx.commit()
        finally:
            link.close()
    except psycopg.Error as error:
        raise from_postgres(error, target) from error


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
