"""A listener seen from outside, by real handshakes with real servers."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading

import pytest
from capsign_adapter.drift.tls_look import Listener, look, reached
from support.ca import Authority

AUTHORITY = Authority()


class Server:
    """Accepts, shakes hands, waits for a byte and hangs up; until it is closed."""

    def __init__(self, directory, newest, demands: bool) -> None:
        server = AUTHORITY.issue("spiffe://capsign.test/adapter", dns=("localhost",))
        certificate, private_key = server.write(directory, "server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, private_key)
        context.minimum_version, context.maximum_version = newest
        if demands:
            ca = directory / "ca.pem"
            ca.write_bytes(AUTHORITY.certificate)
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
        self.context = context
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                plain, _ = self.socket.accept()
            except OSError:
                return
            try:
                with plain, self.context.wrap_socket(plain, server_side=True) as tls:
                    tls.settimeout(5)
                    tls.recv(1)
            except OSError:
                continue

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


TWO, THREE = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture
def server(request, tmp_path):
    running = Server(tmp_path, *request.param)
    yield Listener("listener/people", "127.0.0.1", running.port, "demanded")
    running.close()


@pytest.mark.parametrize(
    ("server", "oldest", "newest", "asked"),
    [
        (((THREE, THREE), True), "1.3", "1.3", "demanded"),
        (((THREE, THREE), False), "1.3", "1.3", "none"),
        (((TWO, THREE), True), "1.2", "1.3", "demanded"),
        (((TWO, THREE), False), "1.2", "1.3", "none"),
        (((TWO, TWO), False), "1.2", "1.2", "none"),
    ],
    indirect=["server"],
)
def test_what_a_listener_negotiates_is_seen(server, oldest, newest, asked):
    seen = look(server)
    assert seen is not None
    assert (seen.facts["oldest"], seen.facts["newest"]) == (oldest, newest)
    assert seen.facts["client-certificate"] == asked
    assert seen.facts["wanted"] == "demanded"
    assert seen.life_ms > 0
    assert seen.facts["cipher"].startswith("TLS_") == (newest == "1.3")


FLOOR = """
import sys
import {first}
import grpc
from concurrent import futures
from capsign_adapter.drift.tls_look import Listener, look
pair = [(open(sys.argv[2], "rb").read(), open(sys.argv[1], "rb").read())]
server = grpc.server(futures.ThreadPoolExecutor(1))
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
server.start()
seen = look(Listener("listener/enrolment", "127.0.0.1", port, "none"))
print(seen.facts["oldest"], seen.facts["newest"])
"""


@pytest.mark.parametrize(
    ("first", "oldest"), [("capsign_adapter", "1.2"), ("capsign_adapter.__main__", "1.3")]
)
def test_the_adapters_process_speaks_nothing_below_tls_1_3(tmp_path, first, oldest):
    """gRPC took TLS 1.2 where it demands no certificate, at the address for enrolment: the adapter
    found that of itself, and in every cluster an alert about it stood for ever.
    """
    files = AUTHORITY.issue(dns=("localhost",)).write(tmp_path, "server")
    done = subprocess.run(
        [sys.executable, "-c", FLOOR.format(first=first), *files],
        capture_output=True,
        text=True,
        timeout=60,
        env={k: v for k, v in os.environ.items() if k != "GRPC_SSL_CIPHER_SUITES"},
    )
    assert done.stdout.split() == [oldest, "1.3"], done.stderr


def test_of_a_listener_that_is_not_there_nothing_is_known():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert look(Listener("listener/people", "127.0.0.1", port, "demanded")) is None


def test_of_a_listener_that_speaks_no_tls_nothing_is_known():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer():
            peer, _ = server.accept()
            with peer:
                peer.recv(100)
                peer.sendall(b"HTTP/1.1 400\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert look(Listener("listener/people", "127.0.0.1", port, "demanded")) is None
        thread.join()


@pytest.mark.parametrize(
    ("bound", "host"),
    [("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.7", "10.0.0.7")],  # noqa: S104
)
def test_where_a_listener_is_reached_from_its_own_process(bound, host):
    assert reached(bound) == host
