"""A path, and what gRPC calls the socket at it: for every byte that a path may have, with sockets
that are really there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import capsign
import grpc
import pytest
from capsign.socket_address import socket_target
from capsign_agent.front.sockets import SocketClaim
from capsign_wire import channels, unix_socket
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st
from support.fake_agent import FakeAgent

PATH_BYTES = bytes(sorted(set(range(1, 256)) - {ord("/"), ord(",")}))
"""All that a name in a path may be made of, but for the comma, which gRPC cannot name."""


@pytest.fixture
def folder():
    found = Path(tempfile.mkdtemp(prefix="c-"))  # not tmp_path: it is long
    yield found
    shutil.rmtree(found)


@given(
    st.binary(min_size=1, max_size=106).map(
        lambda raw: b"/" + raw.replace(b"\0", b"x").replace(b",", b"y")
    )
)
def test_there_and_back(raw):
    path = os.fsdecode(raw)
    target = unix_socket.target(path)
    assert target.isascii()
    assert target.isprintable()
    assert not set(target) & set("#? ,")
    assert unix_socket.path_of(target) == unix_socket.absolute(path)
    assert unix_socket.target(unix_socket.path_of(target)) == target


@given(st.text().filter(lambda text: "\0" not in text))
def test_any_text_is_a_path_or_a_sentence(text):
    try:
        told = unix_socket.target(unix_socket.path_of(text))
        assert told.startswith("unix:/")
    except UnicodeEncodeError:
        # half a character: nothing that the environment or a command line could hold
        return
    except ValueError as error:
        told = str(error)
    assert told.isprintable()


ODD_NAMES = [
    *(PATH_BYTES[at : at + 64] for at in range(0, len(PATH_BYTES), 64)),
    b"a#b",
    b"a?b",
    b"a%20b",
    b"100%",
    b"a b ",
    b" a",
    b"'quoted'",
    b'"',
    b"a\nb",
    b"unix:x",
    "\U0001f511 é".encode(),
    b"\xff\xfe",
    b"~",
    b"@",
    b"[::1]:7443",
    b"a:b;c",
]


def names(folder):
    """Sockets in directories of odd names, one of odd names itself, and the longest that there can
    be.
    """
    base = os.fsencode(folder)
    for name in ODD_NAMES:
        yield base + b"/" + name + b"/s"
        yield base + b"/n/" + name
    yield base + b"/" + b"x" * (107 - len(base) - 1)


def test_every_name_that_is_served_is_reached(folder):
    """A socket in a directory called `a#b` was served and could not be reached; one in `%20` lay
    elsewhere than it should.
    """
    servicer = health.HealthServicer()
    for raw in names(folder):
        path = Path(os.fsdecode(raw))
        claim = SocketClaim(path, 0o600)
        server = grpc.server(ThreadPoolExecutor(1))
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        server.add_insecure_port(claim.address)
        server.start()
        claim.bound()
        try:
            assert claim.intact, "it lies where the settings say"
            with channels.insecure(socket_target(path)) as channel:
                health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=10
                )
        finally:
            server.stop(None).wait()
            claim.release()


async def test_both_clients_reach_an_odd_place_however_it_is_named(folder, monkeypatch):
    home = folder / os.fsdecode(b"#?%20%\xff \n\xf0\x9f\x94\x91")
    home.mkdir()
    link = folder / "link"
    link.symlink_to(home)
    agent = FakeAgent(home / "agent.sock").start()
    monkeypatch.chdir(home)
    path = str(home / "agent.sock")
    try:
        spellings = [
            path,
            "/" + path,
            path.replace("/", "//"),
            path + "/",
            home / "agent.sock",
            os.fsencode(path),
            unix_socket.target(path),
            unix_socket.target(path).replace("unix:", "unix://"),
            "agent.sock",
            "./agent.sock",
            "unix:agent.sock",
            link / "agent.sock",
            link / "." / "agent.sock",
        ]
        for one in spellings:
            with capsign.Signer(one) as signer:
                assert signer.handles(), one
            async with capsign.AsyncSigner(one) as asynchronous:
                assert await asynchronous.handles(), one
        monkeypatch.setenv("CAPSIGN_SOCKET", path)
        with capsign.Signer() as signer:
            assert signer.handles()
    finally:
        agent.stop()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("@capsign", "abstract socket"),
        ("unix-abstract:capsign", "abstract socket"),
        ("unix://run/x.sock", "unix:///run/x.sock"),
        ("unix:/run/a#b", "%23"),
        ("unix:/run/a?b", "%3F"),
        ("https://adapter:7443", "not a Unix socket"),
        ("/run/a,b/agent.sock", "comma"),
        ("unix:/run/a%2Cb", "comma"),
        ("unix:/run/a%00b", "NUL"),
        ("/" + "x" * 107, "longer than 107 bytes"),
        ("/" + "é" * 54, "longer than 107 bytes"),
        ("unix:", "is empty"),
    ],
)
def test_what_cannot_be_is_told(text, says):
    with pytest.raises(ValueError, match=says):
        socket_target(text)


def test_a_path_of_107_bytes_can_be(folder):
    assert unix_socket.fault("/" + "x" * 106) == ""
    assert unix_socket.target("/" + "%" * 106).count("%25") == 106
