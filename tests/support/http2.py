"""Some HTTP/2 by hand, for what no gRPC library would say: it keeps to flow control and to nothing
else.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW = 4
"""The setting's number."""

SERVICE = b"/capsign.agent.v1.SigningService/"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def literal(name: bytes, value: bytes) -> bytes:
    """A header that is not to be indexed, RFC 7541 section 6.2.2."""
    return b"\x00" + _length(len(name)) + name + _length(len(value)) + value


def _length(size: int) -> bytes:
    if size < 127:
        return bytes([size])
    out, size = bytearray([127]), size - 127
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes([*out, size])


def grpc_headers(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A POST over http, as gRPC begins each call."""
    pairs = (
        (b":path", path),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    )
    return b"\x83\x86" + b"".join(literal(name, value) for name, value in pairs)


class Stream:
    """What is to be sent on one stream, in order, as far as the windows allow."""

    def __init__(self, window: int, data: bytes) -> None:
        self.window = window
        self.data = memoryview(data)
        self.ended = False
        """By the other side."""


class Connection:
    """One connection. `talk` moves it; nothing blocks."""

    def __init__(self, path: str, *, window: int = 65_535) -> None:
        """`window`: what the other side may send on each stream."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._socket.setblocking(False)
        self._out = bytearray(
            PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, window))
        )
        self._in = bytearray()
        self._window = self._initial = 65_535
        self._next = 1
        self.streams: dict[int, Stream] = {}
        self.sent = 0
        """Bytes of DATA."""
        self.dead = False
        self.reads = True
        """Whether it takes what the other side says."""

    def open(self, headers: bytes, data: bytes = b"") -> Stream:
        """A call that goes on to send `data` and does not end."""
        number, self._next = self._next, self._next + 2
        self._out += frame(HEADERS, END_HEADERS, number, headers)
        stream = self.streams[number] = Stream(self._initial, data)
        return stream

    def say(self, raw: bytes) -> None:
        """Anything."""
        self._out += raw

    @property
    def wants_to_send(self) -> bool:
        return bool(self._out)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self.dead = True
        self._socket.close()

    def fill(self) -> None:
        """Put what the windows allow behind what is to be sent."""
        for number, stream in self.streams.items():
            while stream.data and not stream.ended and len(self._out) < 256 * 1024:
                size = min(16_384, stream.window, self._window, len(stream.data))
                if size <= 0:
                    break
                self._out += frame(DATA, 0, number, bytes(stream.data[:size]))
                stream.data = stream.data[size:]
                stream.window -= size
                self._window -= size
                self.sent += size

    def write(self) -> None:
        try:
            del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def read(self) -> None:
        try:
            heard = self._socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            self.close()
        self._in += heard
        while len(self._in) >= 9 and len(self._in) >= 9 + int.from_bytes(self._in[:3], "big"):
            size = int.from_bytes(self._in[:3], "big")
            number = int.from_bytes(self._in[5:9], "big") & 0x7FFFFFFF
            self._heard(self._in[3], self._in[4], number, bytes(self._in[9 : 9 + size]))
            del self._in[: 9 + size]

    def _heard(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        stream = self.streams.get(number)
        if kind == WINDOW_UPDATE and number == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == WINDOW_UPDATE and stream is not None:
            stream.window += int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == INITIAL_WINDOW:
                    for one in self.streams.values():
                        one.window += value - self._initial
                    self._initial = value
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif stream is not None and (
            kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM)
        ):
            stream.ended = True


def talk(connections: Sequence[Connection], seconds: float) -> None:
    """Send what may be sent and take what comes, for so long or until all are dead."""
    end = time.monotonic() + seconds
    while (alive := [one for one in connections if not one.dead]) and time.monotonic() < end:
        poll, known = select.poll(), {one.fileno(): one for one in alive}
        for one in alive:
            one.fill()
            poll.register(
                one,
                (select.POLLIN if one.reads else 0) | (select.POLLOUT if one.wants_to_send else 0),
            )
        for number, events in poll.poll(50):
            one = known[number]
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                one.read()
            if events & select.POLLOUT and not one.dead:
                one.write()
