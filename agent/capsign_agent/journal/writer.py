"""The segment that is being written: whole frames or nothing, also when the disk is full."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from capsign_wire.adapter.v1 import evidence_pb2

from capsign_agent.journal.frames import frame


class SegmentWriter:
    """Its file appears with its first record, so no file is ever without one for long."""

    def __init__(self, path: Path, boot_id: bytes, previous: bytes) -> None:
        """`previous`: the hash of the batch before it in this life."""
        self.path = path
        self.size = 0
        """Bytes on disk."""
        self._fd = -1
        head = evidence_pb2.AuditBatch(boot_id=boot_id, previous=previous)
        self._head = head.SerializeToString()
        self._hash = hashlib.sha256(self._head)

    def write(self, payload: bytes) -> bool:
        """Write a frame, and the head before the first; False if the disk refuses: then nothing of
        it stays. It survives kill -9 when this returns.
        """
        data = frame(payload) if self.size else frame(self._head) + frame(payload)
        if not self._written(data):
            self._rewind()
            return False
        self.size += len(data)
        self._hash.update(payload)
        return True

    def would_take(self, count: int) -> bool:
        """Whether the disk takes so many bytes now; none of them stays."""
        taken = self._written(bytes(count))
        self._rewind()
        return taken

    def seal(self) -> bytes:
        """End it: the hash of its batch."""
        os.close(self._fd)
        self._fd = -1
        return self._hash.digest()

    def discard(self) -> None:
        """Delete what tries that failed have left: a file without a record."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.path.unlink()

    def _written(self, data: bytes) -> bool:
        try:
            return os.write(self._file(), data) == len(data)
        except OSError:
            return False

    def _file(self) -> int:
        """Its file, made if need be. Raises OSError."""
        if self._fd < 0:
            # the disk may have been full at the start
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o600)
        return self._fd

    def _rewind(self) -> None:
        """What was half written must not stay: the next frame would follow torn bytes."""
        if self._fd >= 0:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
