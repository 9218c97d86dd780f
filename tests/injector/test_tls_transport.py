"""TLS as the webhook's connections have it: whatever pieces bytes come in, whoever pauses, whoever
does not read.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import asynccontextmanager

import pytest
from capsign_injector.certificate.tls import ServingTls
from capsign_injector.serve.tls_transport import READ_BYTES, TlsTransport
from support import injector_rig as rig


class Recorder(asyncio.Protocol):
    """Keeps what it is told. `pause`: at each piece it stops reading for one turn of the loop."""

    def __init__(self, *, pause: bool = False) -> None:
        self.pause = pause
        self.data = bytearray()
        self.transport: asyncio.Transport | None = None
        self.paused_writing = asyncio.Event()
        self.ended, self.lost = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.pause:
            assert self.transport is not None
            assert self.transport.is_reading(), "nothing comes between pause and resume"
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    def eof_received(self) -> bool | None:
        self.ended.set()
        return None

    def pause_writing(self) -> None:
        self.paused_writing.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set()


class Server:
    """One listener; `transport` is that of its last connection."""

    def __init__(self, protocol: Recorder) -> None:
        self.protocol = protocol
        self.tls = ServingTls()
        self.authority, leaf = rig.authority_and_leaf(int(time.time()), "localhost")
        self.tls.load(leaf)
        self.trust = rig.trusting(self.authority.certificate)
        self.transport: TlsTransport | None = None
        self.shared = bytearray(READ_BYTES)
        self.port = 0

    def accept(self) -> TlsTransport:
        self.transport = TlsTransport(
            lambda: self.protocol, self.tls.context, self.shared, close_s=0.05
        )
        return self.transport

    async def caller(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("localhost", self.port, ssl=self.trust)


@asynccontextmanager
async def serving(protocol: Recorder):
    made = Server(protocol)
    listener = await asyncio.get_running_loop().create_server(made.accept, "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        if made.transport is not None:
            made.transport.abort()
        listener.close()


async def test_bytes_that_come_one_by_one_are_a_handshake_and_a_message():
    async with serving(Recorder()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = server.trust.wrap_bio(incoming, outgoing, server_hostname="localhost")

        async def send() -> None:
            for byte in outgoing.read():
                writer.write(bytes([byte]))
                await writer.drain()

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await send()
                incoming.write(await reader.read(4096))
        tls.write(b"hello")
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        await send()
        await server.protocol.ended.wait()
        assert bytes(server.protocol.data) == b"hello"
        await server.protocol.lost.wait()
        writer.close()


async def test_who_pauses_gets_everything_in_order():
    message = bytes(range(256)) * 4096
    async with serving(Recorder(pause=True)) as server:
        _, writer = await server.caller()
        writer.write(message)
        writer.close()
        await server.protocol.lost.wait()
        assert bytes(server.protocol.data) == message


async def test_a_peer_that_reads_nothing_pauses_the_writer_and_is_left_in_time():
    async with serving(Recorder()) as server:
        reader, writer = await server.caller()
        writer.transport.pause_reading()
        writer.write(b"x")
        while not server.protocol.data:  # noqa: ASYNC110 - the protocol has no event for data
            await asyncio.sleep(0.005)
        transport = server.protocol.transport
        assert transport is not None
        while not server.protocol.paused_writing.is_set():
            transport.write(bytes(1 << 20))
            await asyncio.sleep(0)
        transport.close()
        transport.write(b"too late")
        await server.protocol.lost.wait()
        assert transport.is_closing()
        transport.abort()  # of what is gone already: no harm
        assert not reader.at_eof()
        writer.transport.abort()


async def test_a_peer_that_leaves_in_the_handshake_makes_no_connection():
    async with serving(Recorder()) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while server.transport is None:  # noqa: ASYNC110 - a listener has no event
            await asyncio.sleep(0.005)
        writer.close()
        with pytest.raises(OSError, match="no handshake"):
            await server.transport.handshaken
        assert server.protocol.transport is None
