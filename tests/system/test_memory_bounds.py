"""What unfinished, unparsed and unread messages make an adapter hold, in every shape; and that they
do not lie there for ever.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from capsign_adapter.front.memory_pressure import memory_budget
from capsign_cli.dev.ca import DevelopmentCa
from capsign_wire.bounds import ADAPTER_REQUEST_BYTES
from support import raw_http2
from support.direct_adapter import DirectAdapter
from support.hostile import MIB, deployment, forget_peak, peak, rss
from support.raw_http2 import RawHttp2, message

SIGN = "/capsign.adapter.v1.SigningService/Sign"
SUBMIT = "/capsign.adapter.v1.EvidenceService/SubmitAudit"
ROOM_MIB = 40
"""32 places of 256 KiB are 8 MiB, with as much again on its way; the rest is what such calls cost
beside their bytes.
"""


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        yield one


@pytest.fixture
def keys(dev) -> Iterator[list[RawHttp2]]:
    """Connections of as many pods of two workloads, each with a certificate of its own."""
    with ExitStack() as stack:
        made = []
        for number in range(4):
            path = "/ns/demo/sa/app" if number % 2 else "/ns/demo/sa/other"
            one = DevelopmentCa(dev.directory / "pki").issue(f"pod-{os.urandom(4).hex()}", path)
            made.append(RawHttp2(dev, one.certificate, one.private_key))
            stack.callback(made[-1].close)
        yield made


def still_serves(dev) -> None:
    with DirectAdapter(dev.about) as direct:
        assert direct.handle("orders-jwt")


@pytest.mark.parametrize("path", [SIGN, SUBMIT])
@pytest.mark.parametrize(
    "size", [ADAPTER_REQUEST_BYTES, 4 * 1024 * 1024, 64 * 1024 * 1024], ids=["256K", "4M", "64M"]
)
def test_requests_whose_last_bytes_never_come(dev, keys, path, size):
    before = rss(dev.adapter())
    forget_peak(dev.adapter())
    body = message(size, bytes(size))[: min(size, 4 * 1024 * 1024) - 1]
    for key in keys:
        for stream in [key.open(path) for _ in range(12)]:
            key.send(stream, body)
    assert peak(dev.adapter()) - before < ROOM_MIB
    for key in keys:
        key.close()
    still_serves(dev)


def test_many_small_messages_that_nobody_takes_up(dev, keys):
    """A stream whose answers are not read takes no further batch: what follows waits outside."""
    before = rss(dev.adapter())
    forget_peak(dev.adapter())
    whole = message(2, b"\x08\x01") * 12_000
    for key in keys[:2]:
        key.write(
            raw_http2.frame(raw_http2.SETTINGS, 0, 0, b"\0\x04\0\0\0\0")
        )  # they may send us nothing
        for stream in [key.open(SIGN) for _ in range(16)]:
            key.send(stream, whole)
    assert peak(dev.adapter()) - before < ROOM_MIB
    for key in keys:
        key.close()
    still_serves(dev)


@pytest.mark.parametrize("each", [1, 24])
def test_small_frames(dev, keys, each):
    """Frames of a few bytes: the memory is that of the message, and some."""
    before = rss(dev.adapter())
    forget_peak(dev.adapter())
    for key in keys:
        for stream in [key.open(SIGN) for _ in range(6)]:
            key.send(stream, message(ADAPTER_REQUEST_BYTES, bytes(12_000)), each=each)
    assert peak(dev.adapter()) - before < ROOM_MIB
    for key in keys:
        key.close()
    still_serves(dev)


def test_small_frames_that_pin_large_buffers(dev, keys):
    """Between frames of a few bytes comes what nobody keeps, and each pins the buffer that it came
    in.
    All of it together would be half a gigabyte: what waits for the rest is ended before.
    """
    forget_peak(dev.adapter())
    nothing = raw_http2.frame(0x7F, 0, 0, bytes(8_150))
    for key in keys:
        for stream in [key.open(SIGN) for _ in range(6)]:
            key.send(
                stream, message(ADAPTER_REQUEST_BYTES, bytes(60_000)), each=24, between=nothing
            )
    assert peak(dev.adapter()) < memory_budget(None, 32, ADAPTER_REQUEST_BYTES) / MIB * 0.9
    for key in keys:
        key.pump(0.2)
    assert any(key.ended for key in keys)
    for key in keys:
        key.close()
    still_serves(dev)


def test_answers_that_nobody_takes(dev):
    """Calls whose answer finds a closed window: each keeps its place until it is ended, and no more
    are served meanwhile.
    """
    about = dev.about["clients"]["app"]
    before = rss(dev.adapter())
    forget_peak(dev.adapter())
    with ExitStack() as stack:
        one = RawHttp2(dev, Path(about["certificate"]), Path(about["private_key"]), window=0)
        stack.callback(one.close)
        for _ in range(300):
            stream = one.open("/capsign.adapter.v1.CapabilityService/IssueHandles")
            one.write(raw_http2.frame(raw_http2.DATA, raw_http2.END_STREAM, stream, message(0)))
        one.await_ended(300)
        assert peak(dev.adapter()) - before < ROOM_MIB
    still_serves(dev)


@pytest.mark.parametrize(
    ("path", "request_"),
    [(SIGN, message(2, b"\x08\x01")), ("/capsign.adapter.v1.CapabilityService/Watch", message(0))],
    ids=["Sign", "Watch"],
)
def test_streams_whose_answers_nobody_takes_are_ended(dev, path, request_):
    """An answer that holds no signature is in nobody's lease: without an end it would keep its
    place for ever.
    """
    about = dev.about["clients"]["app"]
    with ExitStack() as stack:
        one = RawHttp2(dev, Path(about["certificate"]), Path(about["private_key"]), window=0)
        stack.callback(one.close)
        for _ in range(12):
            one.write(raw_http2.frame(raw_http2.DATA, 0, one.open(path), request_))
        one.await_ended(12, seconds=20)  # 30 would be those that are silent
    still_serves(dev)
