"""What is asked of a witness over HTTP has an end, whatever the witness does."""

import asyncio
import ssl
import threading
from contextlib import suppress

import pytest
from capsign_adapter.witnesses.client import NoAnswerError, Reply, WitnessClient
from capsign_evidence.witness_protocol import MAX_ANSWER_LEN, origin_hash

PATIENCE_S = 0.5


class Server:
    """Answers each request on 127.0.0.1 with `script`, which writes to the connection."""

    def __init__(self):
        self.requests = []
        self.connections = 0
        self.script = None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()
        assert self._ready.wait(30)

    async def _run(self):
        self._ended = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/prefix/"
        self._ready.set()
        await self._ended.wait()
        server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [
                    one for one in head.split(b"\r\n") if one.lower().startswith(b"content-l")
                ]
                body = await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
                self.requests.append((head.split(b"\r\n")[0].decode(), body))
                await self.script(writer)
                await writer.drain()
        writer.close()

    def stop(self):
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.stop()


@pytest.fixture
def client(server):
    made = WitnessClient(server.url, PATIENCE_S, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    yield made
    made.close()


def answers(status, body, *headers):
    async def script(writer):
        lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)

    return script


def test_requests_are_those_of_the_protocol_on_one_connection(server, client):
    server.script = answers(409, b"7\n", "Content-Type: text/x.tlog.size")
    assert client.add_checkpoint(b"body") == Reply(409, "text/x.tlog.size", b"7\n")
    server.script = answers(200, b"note")
    assert client.checkpoint("log.test") == b"note"
    server.script = answers(404, b"none")
    assert client.checkpoint("log.test") is None
    path = f"/prefix/{origin_hash('log.test')}/checkpoint"
    assert server.requests == [
        ("POST /prefix/add-checkpoint HTTP/1.1", b"body"),
        (f"GET {path} HTTP/1.1", b""),
        (f"GET {path} HTTP/1.1", b""),
    ]
    assert server.connections == 1


def test_no_redirect_is_followed(server, client):
    server.script = answers(302, b"", "Location: http://127.0.0.1:1/")
    assert client.add_checkpoint(b"body").status == 302
    with pytest.raises(NoAnswerError, match="status 302"):
        client.checkpoint("log.test")


async def _trickle(writer):
    writer.write(b"HTTP/1.1 200 x\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(100):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(PATIENCE_S / 5)


async def _silent(writer):
    await asyncio.sleep(10 * PATIENCE_S)


async def _close(writer):
    writer.close()


async def _not_http(writer):
    writer.write(b"220 mail.test\r\n\r\n")


async def _cut_off(writer):
    writer.write(b"HTTP/1.1 200 x\r\nContent-Length: 1000\r\n\r\nx")
    writer.close()


@pytest.mark.parametrize(
    "script",
    [_trickle, _silent, _close, _not_http, _cut_off, answers(200, b"x" * (MAX_ANSWER_LEN + 1))],
    ids=["trickles", "is silent", "closes", "is no HTTP", "is cut off", "is too long"],
)
def test_a_witness_that_does_not_answer_well_gives_no_answer(server, client, script):
    server.script = script
    with pytest.raises(NoAnswerError):
        client.add_checkpoint(b"body")
    server.script = answers(200, b"good")
    assert client.add_checkpoint(b"body").body == b"good"


def test_nobody_listens():
    client = WitnessClient(
        "http://127.0.0.1:1", PATIENCE_S, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    with pytest.raises(NoAnswerError):
        client.add_checkpoint(b"body")
    client.close()
