"""How many connections the applications of a pod may have."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator

import pytest
from capsign_agent import process
from support import http2
from support.agent_home import Home, running
from support.fake_adapter import FakeAdapter

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("files", "sockets", "most"),
    [
        (1024, 1, 640),
        (1024, 4, 160),
        (64, 2, 16),
        (1_048_576, 1, 2048),
        (1_048_576, 16, 256),
        (resource.RLIM_INFINITY, 2, 2048),
    ],
)
def test_sockets_share_what_open_files_allow(
    monkeypatch: pytest.MonkeyPatch, files: int, sockets: int, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert process.connections_for(sockets) == most


@pytest.mark.usefixtures("engine")
async def test_whoever_resets_a_stream_is_asked_for_a_sign_of_life(
    place: Home, adapter: FakeAdapter
) -> None:
    """Streams opened and reset without end took the others' rate; who answers no ping opens no more
    of them.
    """
    async with running(place):
        reader, writer = await asyncio.open_unix_connection(str(place.socket))
        settled = PREFACE + http2.frame(http2.SETTINGS, http2.ACK, 0)
        opened = http2.frame(
            http2.HEADERS, http2.END_HEADERS, 1, http2.grpc_headers(http2.SERVICE + b"Sign")
        )
        writer.write(settled + opened + http2.frame(http2.RST_STREAM, 0, 1, bytes([0, 0, 0, 8])))
        async with asyncio.timeout(5):
            while True:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == http2.PING and not head[4] & http2.ACK:
                    break
        writer.close()


@pytest.fixture
def few_files() -> Iterator[int]:
    """So few descriptors that a socket has the least number of connections, which is given."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, files[1]))
    yield process.connections_for(sockets=1)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


@pytest.mark.usefixtures("engine")
async def test_connections_above_the_bound_are_hung_up_on(
    place: Home, adapter: FakeAdapter, few_files: int
) -> None:
    """One container's idle connections took every descriptor: the others' calls found "the disk
    full", and the probe no agent.
    """
    async with running(place):
        writers, heard = [], []
        for _ in range(few_files + 2):
            reader, writer = await asyncio.open_unix_connection(str(place.socket))
            writers.append(writer)
            writer.write(PREFACE)
            try:
                heard.append(bool(await reader.read(64)))
            except ConnectionError:
                heard.append(False)
        assert heard == [True] * few_files + [False] * 2
        for writer in writers:
            writer.close()
