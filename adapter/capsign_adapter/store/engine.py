"""Runs transactions on a relational engine. The engines implement how to lock, commit and roll
back.

Both engines run every write and read through here, so that both behave alike: the head is read
under the writers' lock and written back last, an error before COMMIT wrote nothing, and a
connection that failed is not used again.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from capsign_adapter.store import faults, log, migrate, schema
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.transaction import WRITE_HEAD, Head, Reader, Row, Transaction

Result = TypeVar("Result")
Connection = TypeVar("Connection", bound=Transaction)


class Engine(ABC, Generic[Connection]):
    """Writes and reads of one store in one process. `write` and `read` are safe for any thread."""

    begin_snapshot = "BEGIN"
    """Opens a transaction whose statements all read one state."""

    def __init__(self, dialect: str, place: str) -> None:
        """`place` names the database in messages; it holds no secret."""
        self._dialect = dialect
        self._place = place
        self._closed = threading.Event()

    @property
    def name(self) -> str:
        """ "sqlite" or "postgresql"."""
        return self._dialect

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._place})"

    def write(self, work: Callable[[Transaction, Head], Result]) -> Result:
        """Run `work` as the only writer of all replicas, write the head back, and return once all
        of it is durable.

        If `work` raises, nothing is written. Raises StoreUnavailableError and CommitUnknownError as
        `store.interfaces` says.
        """
        with self._turn():
            self._check_open()
            try:
                writer, head = self._begin()
                before = (head.epoch, head.watermark_ms, head.tree_size)
                result = work(writer, head)
                if (head.epoch, head.watermark_ms, head.tree_size) != before:
                    writer.send(
                        WRITE_HEAD, head.epoch, head.watermark_ms, head.tree_size, head.frontier
                    )
            except BaseException as error:
                self._roll_back()
                self._raise_fault(error)
                raise
            self._commit(writer)
            return result

    def read(self, work: Callable[[Reader], Result], *, snapshot: bool = False) -> Result:
        """Run `work` on what is durable: with `snapshot` all its statements see one state. Raises
        StoreUnavailableError.
        """
        while True:
            self._check_open()
            reader = self._borrow()
            try:
                if snapshot:
                    reader.run(self.begin_snapshot)
                result = work(reader)
                if snapshot:
                    reader.run("COMMIT")
            except BaseException as error:
                if self._discard(reader, error):
                    continue
                self._raise_fault(error)
                raise
            self._give_back(reader)
            return result

    def bring_up_to_date(self, now_ms: int, *, trial: bool) -> None:
        """Apply missing migrations, and check that control row, frontier and log agree.

        `trial`: change nothing; raises StoreOlderError if a migration is missing.
        """
        applied = self.read(migrate.check_version)
        if trial:
            migrate.demand_current(applied)
        if applied < schema.LATEST:
            self.write(
                lambda tx, _: migrate.upgrade(tx, self.name, migrate.check_version(tx), now_ms)
            )
        self.write(lambda tx, head: log.check_tail(tx, head))

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise StoreUnavailableError(f"{self._place}: the store was closed.")

    def _raise_fault(self, error: BaseException) -> None:
        """Raise the store's error for an error of the engine; return if it is not one."""
        fault = self._fault_of(error)
        if fault is not None:
            raise fault from error

    @abstractmethod
    def _turn(self) -> AbstractContextManager[Any]:
        """A lock that one writer of this process (or of all processes) holds at a time. Entering it
        raises StoreUnavailableError after a bounded wait.
        """

    @abstractmethod
    def _begin(self) -> tuple[Connection, Head]:
        """Begin a transaction that excludes the writers of all replicas. Returns its connection and
        the head.
        """

    @abstractmethod
    def _commit(self, writer: Connection) -> None:
        """Make the transaction durable. Raises StoreUnavailableError if certainly nothing was
        written, and CommitUnknownError if that is not known.
        """

    @abstractmethod
    def _roll_back(self) -> None:
        """Leave the writing connection without a transaction, or without a connection."""

    @abstractmethod
    def _borrow(self) -> Connection:
        """Returns a connection to read on. Raises StoreUnavailableError after a bounded wait."""

    @abstractmethod
    def _give_back(self, reader: Connection) -> None:
        """Return a connection that works."""

    @abstractmethod
    def _discard(self, reader: Connection, error: BaseException) -> bool:
        """Close a connection that failed. Returns whether to read again on another one."""

    @abstractmethod
    def _fault_of(self, error: BaseException) -> StoreUnavailableError | None:
        """Returns the store's error for an error outside COMMIT; None for one that is not the
        engine's.
        """

    @abstractmethod
    def close(self) -> None:
        """Close connections."""


def head_of(row: Row | None) -> Head:
    """Returns the control row as a head. Raises StoreDamagedError if there is none."""
    if row is None:
        raise faults.StoreDamagedError(
            "The control row is gone. Stop every replica; restore a backup."
        )
    epoch, watermark_ms, tree_size, frontier = row
    return Head(epoch, watermark_ms, tree_size, bytes(frontier))
