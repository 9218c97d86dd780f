"""What a caller may hold of a witness: bytes, time, connections."""

import socket

import pytest
from capsign_evidence.witness_protocol import MAX_REQUEST_LEN
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


def connected(witness):
    host, port = witness.url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=30)
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


def test_whoever_holds_all_connections_is_not_given_more(witness):
    held = [connected(witness) for _ in range(serve.CONNECTIONS)]
    with connected(witness) as one_more:
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
