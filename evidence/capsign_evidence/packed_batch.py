"""How a store keeps a batch of an agent's records: packed, since the records of one call repeat its
intent id and those of one agent its names.

A byte 0x00, which begins no protobuf message (field numbers count from 1), and a raw DEFLATE stream
(RFC 1951); or the batch as it is, where that is not longer, and in stores of earlier releases.
"""

from __future__ import annotations

import zlib

MAX_BATCH = 1 << 20
"""Longest batch in bytes: no stream is unpacked beyond it."""

_PACKED = b"\x00"
_FASTEST = 1
_WINDOW = -12
"""4 KiB, without the header and checksum of zlib: the log has the batch's SHA-256."""
_MEMORY = 5


def pack(batch: bytes) -> bytes:
    """Returns what is kept of a batch."""
    packer = zlib.compressobj(_FASTEST, zlib.DEFLATED, _WINDOW, _MEMORY)
    packed = b"".join((_PACKED, packer.compress(batch), packer.flush()))
    return packed if len(packed) < len(batch) or batch[:1] == _PACKED else batch


def unpack(kept: bytes) -> bytes:
    """Returns the batch. What somebody changed so that it cannot be unpacked is returned as it is:
    it has not the hash that the batch's entry names.
    """
    if kept[:1] != _PACKED:
        return kept
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        batch = unpacker.decompress(memoryview(kept)[1:], MAX_BATCH)
    except zlib.error:
        return kept
    return batch if unpacker.eof and not unpacker.unused_data else kept
