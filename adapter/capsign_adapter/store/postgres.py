"""The store on PostgreSQL. The control row serialises the writers of all replicas: each locks it
first and writes it last.

A commit takes three round trips: begin and lock; the rows; the control row and COMMIT. If the
connection is lost before the third, nothing was written; if it is lost in the third, the outcome is
not known: CommitUnknownError. READ COMMITTED is enough, since every statement after the lock sees
what earlier holders of the lock committed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from capsign_adapter.store import faults, migrate, schema
from capsign_adapter.store.engine import head_of
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.postgres_connection import (
    USUAL,
    Link,
    Patience,
    SilentError,
    Target,
    from_postgres,
)
from capsign_adapter.store.postgres_readers import Readers
from capsign_adapter.store.relational import RelationalStore
from capsign_adapter.store.transaction import (
    READ_HEAD,
    Head,
    Reader,
    Row,
    Table,
)

Result = TypeVar("Result")

DIALECT: Final = "postgresql"

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
    """Statements on one connection. A statement that is only sent is held back, and goes out
    together with the next one that has an answer.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
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
        """Send the statements held back, and COMMIT. Returns the server's answer: "COMMIT", or
        "ROLLBACK" if the transaction had failed.
        """
        return self._ask(b"COMMIT", ()).statusmessage or ""

    def _ask(self, sql: bytes, parameters: Sequence[Any]) -> psycopg.Cursor[Row]:
        if not self._waiting:
            return self.link.execute(sql, parameters)
        waiting, self._waiting = self._waiting, []
        with self.link.pipeline():
            for statement, values in waiting:
                self.link.execute(statement, values)
            return self.link.execute(sql, parameters)


class PostgresStore(RelationalStore[_PostgresTransaction]):
    """Opens an existing store; `create_postgres` makes one. Broken connections are replaced."""

    begin_snapshot = _BEGIN_SNAPSHOT

    def __init__(
        self,
        url: str,
        password_file: Path | None = None,
        *,
        trial: bool = False,
        patience: Patience = USUAL,
    ) -> None:
        """`trial`: change nothing; raises StoreOlderError if a start would migrate the schema."""
        self._target = Target.parse(url, password_file, patience)
        super().__init__(DIALECT, str(self._target))
        self._writing = threading.Lock()
        self._writer: Link | None = None
        self._readers = Readers(self._target)
        try:
            self._open(trial=trial)
        except BaseException:
            self.close()
            raise

    def clock_ms(self) -> int:
        row = self.read(
            lambda tx: tx.one("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        )
        assert row is not None
        return int(row[0])

    def size_bytes(self) -> int:
        row = self.read(lambda tx: tx.one(_SIZE))
        assert row is not None
        return int(row[0])

    @property
    def idle_readers(self) -> int:
        """Reading connections that wait for somebody."""
        return self._readers.idle

    def _open(self, *, trial: bool) -> None:
        if not self.read(_has_schema):
            raise faults.StoreMissingError(
                f"{self._place} holds no capsign schema. If this deployment had one, restore it; "
                f"if it is new, {faults.MAKE_ONE}."
            )
        self.bring_up_to_date(_now_ms(), trial=trial)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=WAIT_S):
            raise StoreUnavailableError(
                f"{self._place}: the writers of this process waited {WAIT_S:g} s for their turn."
            )
        try:
            yield
        finally:
            self._writing.release()

    def _begin(self) -> tuple[_PostgresTransaction, Head]:
        """Returns a connection whose transaction holds the control row. A connection that died
        while idle is replaced, since nothing was sent on it.
        """
        while True:
            link, idle = self._writer, self._writer is not None
            try:
                if link is None:
                    link = self._writer = self._target.connect()
                cursor = link.execute(_BEGIN_AND_LOCK.encode())
                cursor.nextset()
                return _PostgresTransaction(link), head_of(cursor.fetchone())
            except psycopg.Error as error:
                lost = link is not None and link.closed and not isinstance(error, SilentError)
                if not (idle and lost):
                    raise
                self._drop_writer()

    def _commit(self, writer: _PostgresTransaction) -> None:
        link = writer.link
        link.warned = False
        try:
            answer = writer.commit()
        except psycopg.Error as error:
            # An error that leaves the session alive came from the server, which has rolled back.
            # Otherwise the answer was lost.
            refused = not link.closed and error.sqlstate is not None
            self._roll_back()
            if refused:
                raise from_postgres(error, self._target) from error
            raise CommitUnknownError(
                f"{self._place}: the connection broke during commit."
            ) from error
        except BaseException:
            self._drop_writer()
            raise
        if answer != "COMMIT":
            raise StoreUnavailableError(
                f"{self._place}: the server rolled the transaction back ({answer})."
            )
        if link.warned:
            # It gave up waiting for its synchronous standby (SyncRepWaitForLSN): after a failover
            # this would never have happened.
            raise CommitUnknownError(
                f"{self._place}: the server committed, and no standby has confirmed it."
            )

    def _roll_back(self) -> None:
        link = self._writer
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

    def _borrow(self) -> _PostgresTransaction:
        try:
            return _PostgresTransaction(self._readers.borrow())
        except psycopg.Error as error:
            raise from_postgres(error, self._target) from error

    def _give_back(self, reader: _PostgresTransaction) -> None:
        self._readers.give_back(reader.link)

    def _discard(self, reader: _PostgresTransaction, error: BaseException) -> bool:
        died_idle = self._readers.discard(reader.link, error)
        return died_idle and isinstance(error, psycopg.Error)

    def _fault_of(self, error: BaseException) -> StoreUnavailableError | None:
        return from_postgres(error, self._target) if isinstance(error, psycopg.Error) else None

    def close(self) -> None:
        self._closed.set()
        with self._writing:
            self._drop_writer()
        self._readers.close()


def _has_schema(tx: Reader) -> bool:
    row = tx.one("SELECT to_regclass('schema_migrations') IS NOT NULL")
    return bool(row and row[0])


def create_postgres(
    url: str, password_file: Path | None = None, *, through: int = schema.LATEST
) -> None:
    """Create the tables of a new store in an existing, empty database. `through`: up to the
    migration with this number, as an earlier release did. Raises StoreExistsError if they are
    there.
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
            migrate.create(tx, DIALECT, _now_ms(), through=through)
            tx.commit()
        finally:
            link.close()
    except psycopg.Error as error:
        raise from_postgres(error, target) from error


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
