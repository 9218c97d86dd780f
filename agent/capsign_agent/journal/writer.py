"""Writes the current segment. A frame is written as a whole or not at all, also when the disk is
full.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from capsign_wire.adapter.v1 import evidence_pb2

from capsign_agent.journal.frames import frame


class SegmentWriter:
    """One segment. Its file is made with its first record, so an empty file does not stay."""

    def __init__(self, path: Path, boot_id: bytes, previous: bytes) -> None:
        """`previous`: the hash of this life's batch before it."""
        self.path = path
        self.size = 0
        """Bytes on disk."""
        self._fd = -1
        head = evidence_pb2.AuditBatch(boot_id=boot_id, previous=previous)
        self._head = head.SerializeToString()
        self._hash = hashlib.sha256(self._head)

    def write(self, payload: bytes) -> bool:
        """Write a frame, and before the first one the segment's head. Returns False if the disk
        refuses; then nothing of it stays. It survives kill -9 when this returns.
        """
        data = frame(payload) if self.size else frame(self._head) + frame(payload)
        if not self._written(data):
            self._rewind()
            return False
        self.size += len(data)
        self._hash.update(payload)
        return True

    def would_take(self, count: int) -> bool:
        """Whether the disk takes so many bytes now; they are removed again."""
        taken = self._written(bytes(count))
        self._rewind()
        return taken

    def seal(self) -> bytes:
        """End the segment; returns the hash of its batch."""
        os.close(self._fd)
        self._fd = -1
        return self._hash.digest()

    def discard(self) -> None:
        """Delete a file that holds no record, left by failed writes."""
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
        """The segment's file, made if it does not exist. Raises OSError."""
        if self._fd < 0:
            # the disk may have been full at the start
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o600)
        return self._fd

    def _rewind(self) -> None:
        """Remove a half-written frame, or the next frame would follow it."""
        if self._fd >= 0:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
