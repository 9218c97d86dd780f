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
import fcntl
import hashlib
import os
import re
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.bounds import ADAPTER_REQUEST_BYTES
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.writable import obstacle

_FRAME = struct.Struct(">II")

_LIFE = re.compile(r"[0-9]{13}-[0-9a-f]{32}")
"""The folder of a life. Nothing else in the directory is ours: `lost+found`, for example, where it
is a volume of its own.
"""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

SEGMENT_RECORDS = 4096
"""Most records in a segment: the bound of AuditBatch.records."""

SEGMENT_BYTES = ADAPTER_REQUEST_BYTES - 16 * 1024
"""A segment is sealed before it grows above this: it travels in one request."""

RECORD_BYTES = 224
"""Upper bound of one record in a frame: ids, two names of 64 bytes, five integers and its share of
the frame.
"""

CLOSING_BYTES = 4096
"""Kept free for the last records of a life."""


class JournalError(Exception):
    """The journal cannot be used; the text names the path and what to do."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A sealed segment: one batch."""

    path: Path
    boot: str
    last_sequence: int
    records: int
    refused: Counter[str] = field(default_factory=Counter)
    """Bytes of refusals, by socket."""

    def batch(self) -> bytes:
        """The bytes that go upstream, always the same. Raises JournalError if the file changed
        since it was sealed.
        """
        payloads, _, whole = _read_frames(self.path)
        if not whole:
            raise JournalError(
                f"The journal segment {self.path} is damaged. Keep it for the auditor and "
                f"move it away."
            )
        return b"".join(payloads)


class Journal:
    """Appends records of this life and keeps those of earlier ones until they are delivered.

    For one event loop; not for threads. One process at a time holds the directory.
    """

    def __init__(
        self, directory: Path, max_bytes: int, boot_id: bytes, now_ms: int, sockets: int = 1
    ) -> None:
        """Take the directory, recover earlier lives, start this one. Raises JournalError."""
        self._max_bytes = max_bytes
        self._most_refused = max_bytes // 2 // sockets
        self._refused = Counter[str]()
        self._lock = _take(directory)
        self._sealed: list[Segment] = []
        self._sealed_sizes: dict[Path, int] = {}
        self._sealed_bytes = 0
        self.torn_bytes = 0
        """Bytes of frames cut short that recovery dropped."""
        for folder in sorted(
            one for one in directory.iterdir() if _LIFE.fullmatch(one.name) and one.is_dir()
        ):
            self._recover(folder)
        self._boot = f"{now_ms:013d}-{boot_id.hex()}"
        self._boot_id = boot_id
        self._folder = directory / self._boot
        self._failed = False
        try:
            self._folder.mkdir(mode=0o700)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                os.close(self._lock)
                raise _unusable(directory, error) from None
            self._failed = True
        self._sequence = 0
        self._number = 0
        self._promised = 0
        self._pressing = False
        self._opening: evidence_pb2.AuditBatch | None = None
        self._fd = -1
        self._size = 0
        self._records = 0
        self._begin(b"")

    @property
    def size_bytes(self) -> int:
        """What the journal takes on disk."""
        return self._sealed_bytes + self._size

    @property
    def unsealed(self) -> int:
        """Records in the current segment."""
        return self._records

    @property
    def sequence(self) -> int:
        """The last sequence number given out."""
        return self._sequence

    @property
    def full(self) -> bool:
        """Whether one more call would be refused."""
        return self._failed or self._room() < 2 * RECORD_BYTES

    @property
    def waiting(self) -> bool:
        """Whether anything is not delivered yet."""
        return bool(self._sealed) or self._records > 0

    def open(self, piece: evidence_pb2.AuditBatch) -> None:
        """Write the first record of this life. If the disk is full it waits, and nothing is written
        before it: until there is room the journal is `full`, and what earlier lives left can be
        delivered, which makes room.
        """
        self._opening = piece
        with contextlib.suppress(FailureError):
            self._open()

    def promise(self, calls: int) -> None:
        """Reserve room for the INTENT and the OUTCOME of so many calls. Raises FailureError
        JOURNAL_FULL and reserves nothing.

        The OUTCOME is written with `append`, which always has room for what was promised.
        """
        if self._failed:
            self._try_again()
        if self._failed or self._room() < calls * 2 * RECORD_BYTES:
            raise FailureError(
                failures_pb2.REASON_JOURNAL_FULL,
                "The agent's audit journal is full.",
                retry_after_ms=1000,
            )
        self._promised += calls * 2

    @property
    def pressing(self) -> bool:
        """Whether the current segment holds more than routine."""
        return self._pressing

    def append(
        self, piece: evidence_pb2.AuditBatch, promised: int = 0, *, routine: bool = False
    ) -> None:
        """Write records in one go, giving them sequence and time; they survive kill -9 when this
        returns.

        `routine`: they say that all is as it was, and need no batch of their own soon. `promised`
        of them take room that `promise` reserved. Raises FailureError JOURNAL_FULL if the disk
        refuses: then nothing
        was written and no sequence number was used.
        """
        count = len(piece.records)
        if count > SEGMENT_RECORDS:
            raise ValueError("more records than a segment holds")
        self._open()
        if self._records and (
            self._records + count > SEGMENT_RECORDS
            or self._size + count * RECORD_BYTES > SEGMENT_BYTES
        ):
            self._seal()
        now_ms = time.time_ns() // 1_000_000
        for sequence, record in enumerate(piece.records, self._sequence + 1):
            record.sequence = sequence
            record.time_ms = now_ms
        self._write(piece.SerializeToString())
        self._sequence += count
        self._records += count
        self._pressing = self._pressing or not routine
        self._promised = max(0, self._promised - promised)

    def refuse(self, piece: evidence_pb2.AuditBatch, socket: str) -> None:
        """Write what was refused to a socket. Raises FailureError JOURNAL_FULL; then the refusal
        must not be told.

        Half of the journal is open to refusals, in equal shares for the sockets: who is refused
        without end, or wants to be, keeps nobody else from signing. The piece that reaches the
        share is still taken.
        """
        no_room = self._failed or self._room() < len(piece.records) * RECORD_BYTES
        if no_room or self._refused[socket] >= self._most_refused:
            detail = "The agent's audit journal has no room for another refusal."
            raise FailureError(failures_pb2.REASON_JOURNAL_FULL, detail, retry_after_ms=1000)
        self.append(piece)
        size = piece.ByteSize()
        self._refused[socket] += size
        self._refused_here[socket] += size

    def forget(self, promised: int) -> None:
        """Give back room that will not be used."""
        self._promised = max(0, self._promised - promised)

    def look_again(self) -> None:
        """After a failed write: see whether the disk has room now, so that `full` says how it is
        and not how it was.
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
        """What is to be delivered, oldest life first, in order within each."""
        return list(self._sealed)

    def delivered(self, segment: Segment) -> None:
        """The adapter has it: delete it. A crash before this only makes the same bytes be sent
        again.
        """
        segment.path.unlink(missing_ok=True)
        self._sealed.remove(segment)
        self._sealed_bytes -= self._sealed_sizes.pop(segment.path)
        self._refused -= segment.refused
        folder = segment.path.parent
        if folder != self._folder and not any(folder.iterdir()):
            folder.rmdir()

    def close(self) -> None:
        """Seal, and let the directory go. A life that has nothing left to deliver leaves no
        folder.
        """
        self.seal()
        if self._fd >= 0:  # nothing but tries that failed
            os.close(self._fd)
            self._current.unlink()
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

    def _room(self) -> int:
        return self._max_bytes - CLOSING_BYTES - self.size_bytes - self._promised * RECORD_BYTES

    def _write(self, payload: bytes) -> None:
        frame = _frame(payload)
        try:
            if not self._size:
                frame = _frame(self._head) + frame
            written = os.write(self._file(), frame)
        except OSError:
            written = -1
        if written != len(frame):
            # The disk is full. What was half written must not stay: the next frame would follow
            # torn bytes.
            self._rewind()
            self._failed = True
            raise FailureError(
                failures_pb2.REASON_JOURNAL_FULL,
                "The disk of the audit journal is full.",
                retry_after_ms=1000,
            )
        self._failed = False
        self._size += len(frame)
        self._hash.update(payload)

    def _file(self) -> int:
        """The current segment, made if need be. Raises OSError."""
        if self._fd < 0:
            self._folder.mkdir(
                mode=0o700, exist_ok=True
            )  # the disk may have been full at the start
            self._fd = os.open(
                self._current, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
        return self._fd

    def _try_again(self) -> None:
        """After a failed write: see whether the disk takes bytes again, leaving none behind."""
        try:
            self._failed = os.write(self._file(), bytes(RECORD_BYTES)) != RECORD_BYTES
        except OSError:
            self._failed = True
        self._rewind()

    def _rewind(self) -> None:
        if self._fd >= 0:
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)

    def _begin(self, previous: bytes) -> None:
        """Prepare the next segment. Its file appears with its first record, so no file is ever
        without one for long.
        """
        self._number += 1
        self._current = self._folder / f"{self._number:08d}.seg"
        self._head = evidence_pb2.AuditBatch(
            boot_id=self._boot_id, previous=previous
        ).SerializeToString()
        self._fd, self._size, self._records = -1, 0, 0
        self._pressing = False
        self._refused_here = Counter[str]()
        self._hash = hashlib.sha256(self._head)

    def _seal(self) -> None:
        os.close(self._fd)
        self._sealed.append(
            Segment(self._current, self._boot, self._sequence, self._records, self._refused_here)
        )
        self._sealed_sizes[self._current] = self._size
        self._sealed_bytes += self._size
        self._begin(self._hash.digest())

    def _recover(self, folder: Path) -> None:
        """Take over the segments of an earlier life, in order. Only the last may end in a frame cut
        short.
        """
        paths = sorted(folder.glob("*.seg"))
        for path in paths:
            payloads, good, whole = _read_frames(path)
            if not whole:
                if path != paths[-1]:
                    raise JournalError(
                        f"The journal segment {path} is damaged. Keep it for the auditor "
                        f"and move it away."
                    )
                self.torn_bytes += path.stat().st_size - good
                os.truncate(
                    path, good
                )  # a crash before this only makes it happen at the next start
            last, count = _held(payloads)
            if count == 0:
                path.unlink()  # it holds no record: nothing was done under it
                continue
            self._sealed.append(Segment(path, folder.name, last, count))
            self._sealed_sizes[path] = good
            self._sealed_bytes += good
        if not any(folder.iterdir()):
            folder.rmdir()


def look_at(directory: Path) -> None:
    """See what a journal there would meet, and change nothing. Raises JournalError."""
    hindrance = obstacle(directory)
    if hindrance:
        raise JournalError(
            f"The journal {directory} {hindrance}. Set journal.dir to a directory that "
            f"the agent owns."
        )
    with contextlib.suppress(FileNotFoundError):
        os.close(_take(directory, make=False))


def _take(directory: Path, *, make: bool = True) -> int:
    """The lock. Raises JournalError; FileNotFoundError if nothing is to be made and it is not
    there.
    """
    try:
        if make:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
        descriptor = os.open(directory / ".lock", flags, 0o600)
    except OSError as error:
        if not make and isinstance(error, FileNotFoundError):
            raise
        raise _unusable(directory, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise JournalError(
            f"Another agent uses the journal {directory}. Give each agent a directory of its own."
        ) from None
    return descriptor


def _unusable(directory: Path, error: OSError) -> JournalError:
    return JournalError(
        f"The journal {directory} cannot be used ({error.strerror}). It must be a "
        f"directory that the agent owns."
    )


def _frame(payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _frames(data: bytes) -> Iterator[bytes]:
    at = 0
    while len(data) - at >= _FRAME.size:
        length, checksum = _FRAME.unpack_from(data, at)
        payload = data[at + _FRAME.size : at + _FRAME.size + length]
        if len(payload) != length or zlib.crc32(payload) != checksum:
            return
        yield payload
        at += _FRAME.size + length


def _read_frames(path: Path) -> tuple[list[bytes], int, bool]:
    """The good frames from the start, how many bytes they take, and whether that is the whole
    file.
    """
    data = path.read_bytes()
    payloads = list(_frames(data))
    good = sum(len(one) + _FRAME.size for one in payloads)
    return payloads, good, good == len(data)


def _held(payloads: list[bytes]) -> tuple[int, int]:
    """The last sequence number of a segment's records and how many there are."""
    records = evidence_pb2.AuditBatch.FromString(b"".join(payloads)).records
    return (records[-1].sequence, len(records)) if records else (0, 0)
