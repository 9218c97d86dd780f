"""Documents that travel compressed."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from capsign_wire.failures import FailureError
from capsign_wire.packed import pack, unpack
from capsign_wire.types.v1 import failures_pb2 as reasons


@pytest.mark.parametrize("data", [b"", b"version: 1\n", bytes(range(256)) * 64])
def test_it_comes_back_as_it_was(data):
    assert unpack(pack(data), len(data)) == data


def test_no_more_than_that_is_unpacked():
    """A stream of 64 KiB may stand for 64 MiB; they are never held."""
    bomb = zlib.compress(bytes(64 * 1024 * 1024), 9)
    tracemalloc.start()
    with pytest.raises(FailureError) as caught:
        unpack(bomb, 1024)
    assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    tracemalloc.stop()
    assert caught.value.reason == reasons.REASON_INPUT_TOO_LARGE


@pytest.mark.parametrize(
    "stream", [b"", b"version: 1", pack(b"policy")[:-1], pack(b"policy") + b"more"]
)
def test_what_is_not_one_whole_stream_is_refused(stream):
    with pytest.raises(FailureError) as caught:
        unpack(stream, 1024)
    assert caught.value.reason == reasons.REASON_INPUT_MALFORMED
