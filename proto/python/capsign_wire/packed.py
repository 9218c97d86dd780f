"""Documents that travel compressed, as zlib streams (RFC 1950): bounded before and after."""

from __future__ import annotations

import zlib

from capsign_wire.advice import Given
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

MAX_PACKED = 61_440
"""Longest stream in a request, bytes."""


def pack(data: bytes) -> bytes:
    """The stream."""
    return zlib.compress(data, 9)


def unpack(stream: bytes, most: int) -> bytes:
    """The bytes in it. Raises FailureError INPUT_MALFORMED, and INPUT_TOO_LARGE for more than
    `most`: no more than that is ever held.
    """
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(stream, most + 1)
    except zlib.error:
        data = b""
    if len(data) > most:
        detail = f"The document has more than {most} bytes."
        raise FailureError(
            failures_pb2.REASON_INPUT_TOO_LARGE, detail, field="document", given=Given.TEXT
        )
    if not reader.eof or reader.unused_data:
        detail = "The document is not one whole zlib stream."
        raise FailureError(failures_pb2.REASON_INPUT_MALFORMED, detail, field="document")
    return data
