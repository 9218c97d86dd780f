"""What a caller may hold of a witness: bytes, time, connections."""

import asyncio
import socket
from contextlib import suppress
from types import SimpleNamespace

import pytest
from capsign_evidence.witness_protocol import MAX_REQUEST_LEN
from capsign_wire.addresses import Address
from capsign_witness import serve
from support.witnessed_log import log_and_fork
from support.witnesses import OurWitness

pytestmark = pytest.mark.system

LOG, _ = log_and_fork()


@pytest.fixture(scope="module")
def witness(tmp_path_factory):
    made = OurWitness(tmp_path_factory.mktemp("witness"), "w1", [LOG.key.text()])
    yield made
    made.kill()


def connected(witness, address="127.0.0.1"):
    """A connection from this address of the machine."""
    host, port = witness.url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), 30, source_address=(address, 0))
    made.settimeout(60)
    return made


def status_of(connection):
    return connection.makefile("rb").readline().split()[1]


def test_a_request_that_is_too_long_is_refused(witness):
    assert witness.post(b"x" * (MAX_REQUEST_LEN + 1))[0] == 413


def test_a_request_without_end_is_refused_before_its_end(witness):
    with connected(witness) as connection:
        head = f"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n"
        connection.sendall(head.encode())
        connection.sendall(b"x" * (MAX_REQUEST_LEN + 1))
        assert status_of(connection) == b"413"


def test_other_methods_have_no_effect(witness):
    with connected(witness) as connection:
        connection.sendall(b"PUT /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert status_of(connection) == b"405"


def addresses():
    """As many as it takes to have all connections."""
    count = serve.USUAL.connections // serve.USUAL.of_one_address
    return [f"127.0.0.{number + 1}" for number in range(count)]


def test_whoever_holds_all_connections_is_not_given_more(witness):
    held = [
        connected(witness, address)
        for address in addresses()
        for _ in range(serve.USUAL.of_one_address)
    ]
    with connected(witness, "127.0.0.99") as one_more:
        try:
            one_more.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            ended = one_more.recv(1) == b""
        except ConnectionError:
            ended = True
    assert ended
    for connection in held:
        connection.close()
    for _ in range(100):
        with connected(witness) as connection:
            try:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                if status_of(connection) == b"404":
                    return
            except (ConnectionError, IndexError):
                continue
    raise AssertionError("nobody is served any more")


HALF = b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf"


def test_slow_posts_of_one_address_keep_nobody_else_from_being_served(witness):
    """64 of them had all places, for ten seconds each time."""
    held = [connected(witness) for _ in range(serve.USUAL.of_one_address)]
    try:
        for connection in held:
            connection.sendall(HALF)
        with connected(witness, "127.0.0.2") as other:
            other.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
            assert status_of(other) == b"400", "it is read, and it is nonsense"
        with connected(witness) as one_more, suppress(ConnectionError):
            one_more.sendall(HALF)
            assert one_more.recv(1) == b""
    finally:
        for connection in held:
            connection.close()


@pytest.fixture
async def hurried():
    """Where a witness listens that gives nobody time."""
    bounds = serve.Bounds(head_s=0.1, body_s=0.1)
    front = serve.Front(SimpleNamespace(), bounds=bounds)
    server, handler = await serve.listen(front, Address("127.0.0.1", 0), None, bounds)
    async with server:
        yield server.sockets[0].getsockname()[:2]
        await handler.shutdown(1)


@pytest.mark.parametrize("sent", [b"", b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\n"])
async def test_headers_that_do_not_come_end_the_connection(hurried, sent):
    reader, writer = await asyncio.open_connection(*hurried)
    writer.write(sent)
    with suppress(ConnectionError):
        assert await reader.read(1) == b""
    writer.close()


async def test_a_body_that_does_not_come_is_answered_so(hurried):
    reader, writer = await asyncio.open_connection(*hurried)
    writer.write(HALF)
    assert (await reader.readline()).split()[1] == b"408"
    writer.close()


async def test_a_connection_that_has_asked_may_ask_again(hurried):
    """The time for the first headers is not that of the connection."""
    reader, writer = await asyncio.open_connection(*hurried)
    for _ in range(3):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 404 " in head
        await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split()[0]))
        await asyncio.sleep(0.1)
    writer.close()


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1:2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
    ],
)
def test_whose_a_connection_is(host, network):
    assert serve.network_of(host) == network
