"""The local journal: what the agent did, on disk before it answers.

Layout of the directory: one folder for each life ("boot") of the agent, named `<start in ms, 13
digits>-<boot id, hex>`; in it segments `00000001.seg`, `00000002.seg` … A segment is a row of
frames `length (u32) ‖ CRC-32 of payload (u32) ‖ payload`, big endian. Every payload is a serialised
piece of an `AuditBatch`: the first holds `boot_id` and `previous`, the others hold records.
Protobuf messages concatenate, so the payloads of a segment, one after the other, *are* the batch
that goes upstream: its bytes are fixed when the segment is sealed and are the same however often it
is sent. A segment is deleted once the adapter has it.

A frame is one `write`. After kill -9 everything written is still there; a frame cut short belongs
to a call that was not sent yet or not answered yet, so dropping it loses nothing. (Power loss of
the node loses the journal with the pod: the adapter's own record and the missing CLOSE show it.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.bounds import ADAPTER_REQUEST_BYTES
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.journal import directory as places
from capsign_agent.journal import frames, records
from capsign_agent.journal.backlog import Backlog, Segment
from capsign_agent.journal.recovery import recover
from capsign_agent.journal.shares import RECORD_BYTES, Shares
from capsign_agent.journal.writer import SegmentWriter

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

SEGMENT_CALLS = 4096
"""Most calls that the records of a segment tell of: the bound of an AuditBatch."""

SEGMENT_BYTES = ADAPTER_REQUEST_BYTES - 16 * 1024
"""A segment is sealed before it is larger than this, because it travels in one request."""

MAX_LEFT = 512
"""Most earlier lives that the first record of a life names, the newest: an agent that cannot start
leaves one each time.
"""

CLOSING_BYTES = 4096
"""Bytes that are kept free for the last records of a life."""


class Journal:
    """Appends records of this life and keeps those of earlier lives until they are delivered. For
    one event loop, not for threads. One process at a time holds the directory.
    """

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        boot_id: bytes,
        now_ms: int,
        sockets: Collection[str] = (),
        reserved_percent: int = 50,
    ) -> None:
        """Take the directory, recover earlier lives, start this one. `reserved_percent` of it are
        kept for the sockets, in equal shares. Raises JournalError.
        """
        self._max_bytes = max_bytes
        self._shares = Shares(sockets, max_bytes - CLOSING_BYTES, reserved_percent)
        self._lock = places.lock(directory)
        self._backlog = Backlog()
        earlier = places.lives(directory)
        for folder in earlier:
            recover(folder, self._backlog)
        self._earlier = earlier[-MAX_LEFT:]
        for segment in self._backlog.segments:
            for socket, size in segment.used.items():
                self._shares.wrote(socket, size)
        self._boot_id = boot_id
        self._folder = directory / f"{now_ms:013d}-{boot_id.hex()}"
        self._failed = self._folder_has_no_room(directory)
        self._sequence = 0
        self._number = 0
        self._opening: evidence_pb2.AuditBatch | None = None
        self._begin(b"")

    def left(self) -> list[tuple[bytes, int]]:
        """Earlier lives that this one found, oldest first: boot id, and the last sequence that the
        journal holds; 0: all of it was delivered.
        """
        last = {segment.boot: segment.last_sequence for segment in self._backlog.segments}
        return [(places.boot_of(folder), last.get(folder.name, 0)) for folder in self._earlier]

    @property
    def torn_bytes(self) -> int:
        """Bytes of incomplete frames that recovery dropped."""
        return self._backlog.torn_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes that the journal takes on disk."""
        return self._backlog.size_bytes + self._segment.size

    @property
    def unsealed(self) -> int:
        """Records in the current segment."""
        return self._records

    @property
    def sequence(self) -> int:
        """The last sequence number that was used."""
        return self._sequence

    @property
    def full(self) -> bool:
        """Whether one more call would be refused."""
        return self._failed or self._room() < 2 * RECORD_BYTES

    @property
    def waiting(self) -> bool:
        """Whether anything is not delivered yet."""
        return bool(self._backlog.segments) or self._records > 0

    @property
    def promised(self) -> int:
        """For how many records room is reserved."""
        return self._shares.promised

    @property
    def fullest_share(self) -> float:
        """The part of the journal that one socket's records take, of the one with most."""
        return self._shares.fullest

    def share_of(self, socket: str) -> float:
        """The part of the journal that the records of this socket take."""
        return self._shares.of(socket)

    @property
    def pressing(self) -> bool:
        """Whether the current segment holds anything but routine records."""
        return self._pressing

    def open(self, piece: evidence_pb2.AuditBatch) -> None:
        """Write the first record of this life. While the disk is full it is not written, nothing is
        written before it, and the journal is `full`; what earlier lives left can be delivered,
        which makes room.
        """
        self._opening = piece
        with contextlib.suppress(FailureError):
            self._open()

    def promise(self, calls: int, socket: str = "") -> None:
        """Reserve room for the INTENT and the OUTCOME of so many items of a socket, as if each had
        its own records; those of many take less. Raises FailureError JOURNAL_FULL or
        JOURNAL_SHARE_FULL and reserves nothing then. `append` has room for what was reserved.
        """
        if self._failed:
            self._try_again()
        self._demand(calls * 2 * RECORD_BYTES, socket)
        self._shares.promise(socket, calls * 2)

    def _demand(self, size: int, socket: str) -> None:
        """Raise FailureError unless there is room for so many bytes of a socket."""
        room = self._room()
        if self._failed or room < size:
            raise FailureError(
                failures_pb2.REASON_JOURNAL_FULL,
                "The agent's audit journal is full.",
                retry_after_ms=1000,
            )
        if not self._shares.fits(socket, size, room):
            raise _share_full(socket)

    def append(
        self,
        piece: evidence_pb2.AuditBatch,
        promised: int = 0,
        socket: str = "",
        *,
        routine: bool = False,
        refused: bool = False,
    ) -> None:
        """Write records at once, with sequence and time added; they survive kill -9 when this
        returns.

        `promised` of the calls that they tell of use room that `promise` reserved for this socket.
        `routine`: they state that nothing has changed, and need no batch of their own soon.
        `refused`: they state refusals. Raises FailureError JOURNAL_FULL if the disk refuses; then
        nothing was written and no sequence number was used.
        """
        if (calls := records.calls_in(piece)) > SEGMENT_CALLS:
            raise ValueError("more calls than the records of a segment tell of")
        self._open()
        now_ms, last = time.time_ns() // 1_000_000, self._sequence
        for record in piece.records:
            last += 1
            record.sequence = last
            record.time_ms = now_ms
        payload = piece.SerializeToString()
        if self._records and (
            self._calls + calls > SEGMENT_CALLS
            or self._segment.size + len(payload) + frames.HEAD_BYTES > SEGMENT_BYTES
        ):
            self._seal()
        self._write(payload)
        self._records += last - self._sequence
        self._calls += calls
        self._sequence = last
        if not routine:
            self._pressing = True
        self._shares.forget(socket, promised)
        if socket:
            self._count(socket, len(payload), refused=refused)

    def _count(self, socket: str, size: int, *, refused: bool) -> None:
        self._shares.wrote(socket, size, refused=refused)
        self._used_here[socket] += size
        if refused:
            self._refused_here[socket] += size

    def refuse(self, piece: evidence_pb2.AuditBatch, socket: str) -> None:
        """Write the record of what was refused to a socket. Raises FailureError JOURNAL_FULL or
        JOURNAL_SHARE_FULL; then the caller must not hear the refusal.

        Refusals may take half of the journal, in equal shares for the sockets, so that a socket
        with many refusals keeps none from signing. The piece that reaches the share is still
        written.
        """
        self._demand(records.calls_in(piece) * RECORD_BYTES, socket)
        if not self._shares.may_refuse(socket):
            raise _share_full(socket)
        self.append(piece, socket=socket, refused=True)

    def forget(self, promised: int, socket: str = "") -> None:
        """Release reserved room of a socket that will not be used."""
        self._shares.forget(socket, promised)

    def look_again(self) -> None:
        """After a failed write, check whether the disk has room now, so that `full` is up to
        date.
        """
        if self._opening is not None:
            with contextlib.suppress(FailureError):
                self._open()
        elif self._failed:
            self._try_again()

    def seal(self) -> None:
        """End the current segment if it holds records, so that it can be delivered."""
        if self._records:
            self._seal()

    def sealed(self) -> list[Segment]:
        """The segments to deliver: oldest life first, in order within each."""
        return list(self._backlog.segments)

    def delivered(self, segment: Segment) -> None:
        """The adapter has taken this segment: delete it."""
        self._backlog.remove(segment)
        self._shares.delivered(segment.used, segment.refused)
        folder = segment.path.parent
        if folder != self._folder and not any(folder.iterdir()):
            folder.rmdir()

    def close(self) -> None:
        """Seal the current segment and release the directory. The folder of a life with nothing
        left to deliver is removed.
        """
        self.seal()
        self._segment.discard()
        if self._folder.exists() and not any(self._folder.iterdir()):
            self._folder.rmdir()
        os.close(self._lock)

    def _open(self) -> None:
        """Write the record that begins this life, if it is not written yet. Raises FailureError
        JOURNAL_FULL.
        """
        if self._opening is None:
            return
        piece, self._opening = self._opening, None
        try:
            self.append(piece)
        except FailureError:
            self._opening = piece
            raise
        # Not before: a life whose folder is gone is one that nobody speaks of again.
        for folder in self._earlier:
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()

    def _room(self) -> int:
        return self._max_bytes - CLOSING_BYTES - self.size_bytes - self.promised * RECORD_BYTES

    def _write(self, payload: bytes) -> None:
        self._failed = not self._segment.write(payload)
        if self._failed:
            raise FailureError(
                failures_pb2.REASON_JOURNAL_FULL,
                "The disk of the audit journal is full.",
                retry_after_ms=1000,
            )

    def _try_again(self) -> None:
        """After a failed write, check whether the disk takes bytes again."""
        self._failed = not self._segment.would_take(RECORD_BYTES)

    def _folder_has_no_room(self, directory: Path) -> bool:
        """Make the folder of this life; True if the disk is full. Raises JournalError."""
        try:
            self._folder.mkdir(mode=0o700)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                os.close(self._lock)
                raise places.unusable(directory, error) from None
            return True
        return False

    def _begin(self, previous: bytes) -> None:
        """Prepare the next segment."""
        self._number += 1
        path = self._folder / f"{self._number:08d}.seg"
        self._segment = SegmentWriter(path, self._boot_id, previous)
        self._records = self._calls = 0
        self._pressing = False
        self._used_here, self._refused_here = Counter[str](), Counter[str]()

    def _seal(self) -> None:
        last = self._segment.seal()
        self._backlog.add(
            Segment(
                self._segment.path,
                self._folder.name,
                self._sequence,
                self._records,
                self._segment.size,
                self._used_here,
                self._refused_here,
            )
        )
        self._begin(last)


def _share_full(socket: str) -> FailureError:
    detail = f"What the container of the socket {socket} did takes its share of the journal."
    return FailureError(failures_pb2.REASON_JOURNAL_SHARE_FULL, detail, retry_after_ms=1000)
