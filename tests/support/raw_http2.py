"""A peer that speaks as much HTTP/2 as it takes to misuse it: half messages, odd frames, windows
that never open.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from pathlib import Path
from typing import Any

FRAME = 16_384
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
ACK, END_STREAM, END_HEADERS = 1, 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of one frame."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def message(size: int, body: bytes = b"") -> bytes:
    """The start of a gRPC message that is announced to have so many bytes."""
    return b"\0" + struct.pack(">I", size) + body


def headers(path: str) -> bytes:
    """The header block of a call."""
    fields = {
        ":path": path,
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"\x83\x87" + b"".join(
        _literal(name.encode(), value.encode()) for name, value in fields.items()
    )


def _literal(name: bytes, value: bytes) -> bytes:
    assert max(len(name), len(value)) < 127
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class RawHttp2:
    """One connection over TLS. It obeys the other side's windows, and takes what comes only in
    `pump`.
    """

    def __init__(
        self,
        dev: Any,
        certificate: Path,
        private_key: Path,
        *,
        where: str = "address",
        window: int = 65_535,
    ) -> None:
        """`window` is what the other side may send on each stream."""
        host, port = dev.about["adapters"][0][where].split(":")
        context = ssl.create_default_context(cafile=dev.about["ca"])
        context.load_cert_chain(certificate, private_key)
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection((host, int(port)), timeout=20)
        self.socket = context.wrap_socket(raw, server_hostname=dev.about["server_name"])
        self.ended: set[int] = set()
        """Streams that the other side has ended."""
        self.closed = False
        self._initial = self._connection = 65_535
        self._windows: dict[int, int] = {}
        self._heard = b""
        self._next = 1
        self.socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window))
        )

    def open(self, path: str) -> int:
        """Begin a call; its stream."""
        stream, self._next = self._next, self._next + 2
        self._windows[stream] = self._initial
        self.write(frame(HEADERS, END_HEADERS, stream, headers(path)))
        return stream

    def send(self, stream: int, body: bytes, *, each: int = FRAME, between: bytes = b"") -> int:
        """Send as much of the body as the windows allow, in frames of so many bytes; how much that
        was.
        """
        sent = 0
        while sent < len(body) and stream not in self.ended and not self.closed:
            size = min(each, len(body) - sent, self._connection, self._windows[stream])
            if size <= 0:
                if not self.pump(0.1):
                    break
                continue
            self.write(frame(DATA, 0, stream, body[sent : sent + size]) + between)
            self._connection -= size
            self._windows[stream] -= size
            sent += size
        return sent

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True

    def pump(self, seconds: float = 0.0) -> bool:
        """Take what has come, waiting so long for the first of it; whether anything has."""
        any_heard = False
        while not self.closed and (
            self.socket.pending()
            or select.select([self.socket], [], [], 0 if any_heard else seconds)[0]
        ):
            try:
                data = self.socket.recv(1 << 16)
            except OSError:
                data = b""
            self.closed = not data
            self._heard += data
            any_heard = True
            self._read_frames()
        return any_heard

    def await_ended(self, count: int, seconds: float = 30.0) -> None:
        """Until so many streams were ended by the other side. AssertionError if that takes too
        long.
        """
        end = time.monotonic() + seconds
        while len(self.ended) < count:
            assert time.monotonic() < end, f"{len(self.ended)} of {count} streams were ended"
            self.pump(0.2)

    def _read_frames(self) -> None:
        while len(self._heard) >= 9 and len(self._heard) >= 9 + (
            size := int.from_bytes(self._heard[:3], "big")
        ):
            kind, flags = self._heard[3], self._heard[4]
            stream = int.from_bytes(self._heard[5:9], "big") & 0x7FFFFFFF
            payload, self._heard = self._heard[9 : 9 + size], self._heard[9 + size :]
            if kind == WINDOW_UPDATE:
                self._widen(stream, int.from_bytes(payload, "big"))
            elif kind == SETTINGS and not flags & ACK:
                self._settle(payload)
            elif kind == PING and not flags & ACK:
                self.write(frame(PING, ACK, 0, payload))
            elif kind == RST_STREAM or (kind in {HEADERS, DATA} and flags & END_STREAM):
                self.ended.add(stream)

    def _widen(self, stream: int, by: int) -> None:
        if not stream:
            self._connection += by
        elif stream in self._windows:
            self._windows[stream] += by

    def _settle(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == 4:
                self._windows = {
                    stream: window + value - self._initial
                    for stream, window in self._windows.items()
                }
                self._initial = value
        self.write(frame(SETTINGS, ACK, 0))

    def close(self) -> None:
        """Hang up."""
        self.socket.close()
