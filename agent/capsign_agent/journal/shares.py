"""Whose records take the room of the journal. No I/O.

A part of the journal is reserved in equal shares for the sockets; the rest belongs to whoever comes
first. So one container whose records pile up takes what is free and its own share, and the others
keep theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

RECORD_BYTES = 224
"""Upper bound of the bytes in a frame for each call that a record tells of: for the first an id,
two names of 64 bytes, five integers and its share of the frame; for a further one an id alone.
"""


class Shares:
    """Bytes on disk and reserved, by socket. Records of no socket are not counted."""

    def __init__(self, sockets: Collection[str], room: int, reserved_percent: int) -> None:
        """`room`: bytes that the journal may take in all."""
        self._sockets = tuple(sockets)
        self._room = room
        count = max(1, len(self._sockets))
        self.reserve = room * reserved_percent // 100 // count
        """Bytes that are kept for each socket."""
        self._most_refused = room // 2 // count
        self._used = Counter[str]()
        self._refused = Counter[str]()
        self._promised = Counter[str]()
        self.promised = 0
        """How many records have room reserved."""

    @property
    def fullest(self) -> float:
        """The part of the journal's room that one socket's records take, of the one with most."""
        return max(map(self._of, {*self._used, *self._promised}), default=0) / self._room

    def of(self, socket: str) -> float:
        """The part of the journal's room that a socket's records take."""
        return self._of(socket) / self._room

    def fits(self, socket: str, size: int, room: int) -> bool:
        """Whether so many bytes of a socket leave the others their shares; `room`: bytes that are
        free now.
        """
        if len(self._sockets) < 2 or self._of(socket) + size <= self.reserve:
            return True
        kept = sum(
            max(0, self.reserve - self._of(other)) for other in self._sockets if other != socket
        )
        return size <= room - kept

    def may_refuse(self, socket: str) -> bool:
        """Whether another refusal to a socket may be recorded: refusals take half of the journal,
        in equal shares.
        """
        return self._refused[socket] < self._most_refused

    def promise(self, socket: str, records: int) -> None:
        """Reserve room for so many records."""
        self._promised[socket] += records
        self.promised += records

    def forget(self, socket: str, records: int) -> None:
        """Release room that was reserved, as far as there is any."""
        records = min(records, self._promised[socket])
        self._promised[socket] -= records
        self.promised -= records

    def wrote(self, socket: str, size: int, *, refused: bool = False) -> None:
        """Records of a socket are on disk."""
        self._used[socket] += size
        if refused:
            self._refused[socket] += size

    def delivered(self, used: Counter[str], refused: Counter[str]) -> None:
        """Records have left the disk: bytes by socket, and how many of them were refusals."""
        self._used -= used
        self._refused -= refused

    def _of(self, socket: str) -> int:
        return self._used[socket] + self._promised[socket] * RECORD_BYTES
