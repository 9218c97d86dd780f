"""The last checkpoint that this replica may have shown to anybody, in a file outside the database:
whoever restores an older copy of the database does not restore that with it.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capsign_evidence.checkpoint import TreeHead, open_checkpoint
from capsign_evidence.note import MAX_NOTE_LEN, NoteError, NoteVerifier
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.log_history import rolled_back


class PublishedFile:
    """Safe for any thread, and for replicas that share the file."""

    def __init__(self, path: Path, key: NoteVerifier) -> None:
        """`key` is one of the log's: a file that it did not sign is refused."""
        self._path = path
        self._key = key
        self._lock = threading.Lock()
        self._seen: tuple[bytes, TreeHead] | None = None

    def last(self) -> tuple[bytes, TreeHead] | None:
        """The note in the file and its tree; None if there is no file. Raises FailureError if it
        cannot be read or is no checkpoint of this log.
        """
        with self._lock:
            return self._read()

    def remember(self, note: bytes) -> None:
        """Store a checkpoint of ours, unless the file has a larger one. It is durable when this
        returns. Raises FailureError, LOG_ROLLED_BACK if the file has another root of that size.
        """
        head = open_checkpoint(note, self._key)
        with self._lock, self._exclusive():
            last = self._read()
            held = last[1] if last is not None else None
            if held is not None and held.size == head.size and held.root != head.root:
                raise rolled_back(f"{self._path} has another root for {head.size} leaves.")
            if held is None or held.size < head.size:
                self._write(note)
                self._seen = (note, head)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Against other processes; the kernel ends it when the process dies."""
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._failed(error) from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _read(self) -> tuple[bytes, TreeHead] | None:
        try:
            with self._path.open("rb") as file:
                note = file.read(MAX_NOTE_LEN + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from None
        if self._seen is None or self._seen[0] != note:
            try:
                self._seen = note, open_checkpoint(note, self._key)
            except NoteError as error:
                raise rolled_back(f"{self._path} is no checkpoint of this log: {error}.") from None
        return self._seen

    def _write(self, note: bytes) -> None:
        scratch = self._path.with_name(f"{self._path.name}.new")
        try:
            with scratch.open("wb") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            # a crash before this line leaves the file as it was, after it as it is to be
            scratch.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> FailureError:
        return FailureError(
            failures_pb2.REASON_STORE_UNAVAILABLE,
            f"The last checkpoint cannot be kept in {self._path}: {error.strerror}.",
            retry_after_ms=1000,
        )
