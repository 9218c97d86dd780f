"""How many connections the applications of a pod may have."""

from __future__ import annotations

import asyncio
import resource

import pytest
from capsign_agent import process
from support.agent_home import Home, running
from support.fake_adapter import FakeAdapter

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("files", "sockets", "most"),
    [(1024, 1, 640), (1024, 4, 160), (64, 2, 16), (1_048_576, 1, 2048), (1_048_576, 16, 256), (resource.RLIM_INFINITY, 2, 2048)],
)
def test_sockets_share_what_open_files_allow(monkeypatch: pytest.MonkeyPatch, files: int, sockets: int, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert process.connections_for(sockets) == most


async def test_connections_above_the_bound_are_hung_up_on(
    place: Home, adapter: FakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One container's idle connections took every descriptor: the others' calls found "the disk full", and the probe no agent."""
    monkeypatch.setattr(process, "connections_for", lambda *_: 4)
    async with running(place):
        writers, heard = [], []
        for _ in range(6):
            reader, writer = await asyncio.open_unix_connection(str(place.socket))
            writers.append(writer)
            writer.write(PREFACE)
            try:
                heard.append(bool(await reader.read(64)))
            except ConnectionError:
                heard.append(False)
        assert heard == [True] * 4 + [False] * 2
        for writer in writers:
            writer.close()
