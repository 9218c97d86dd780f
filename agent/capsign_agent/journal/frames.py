"""Frames of records in a file: `length (u32) ‖ CRC-32 of payload (u32) ‖ payload`, big endian. See
`journal`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEAD = struct.Struct(">II")
HEAD_BYTES = _HEAD.size
"""What a frame has beside its payload, bytes."""


class Frames(NamedTuple):
    """The good frames of a file: from its start to the first that is incomplete or damaged."""

    payloads: list[bytes]
    good_bytes: int
    """Bytes that the good frames take."""
    whole: bool
    """Whether they are the whole file."""


def frame(payload: bytes) -> bytes:
    """The frame of one payload."""
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def read(path: Path) -> Frames:
    """The good frames of a file. Raises OSError."""
    data = path.read_bytes()
    payloads = list(_payloads(data))
    good = sum(len(one) + _HEAD.size for one in payloads)
    return Frames(payloads, good, good == len(data))


def _payloads(data: bytes) -> Iterator[bytes]:
    at = 0
    while len(data) - at >= _HEAD.size:
        length, checksum = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + length]
        if len(payload) != length or zlib.crc32(payload) != checksum:
            return
        yield payload
        at += _HEAD.size + length
