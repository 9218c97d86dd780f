"""A socket that is absent, forbidden or not an agent's: within the connect time its path, what is
wrong and what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import capsign
import grpc
import pytest
from capsign.agent_socket import AgentSocket, obstacle

MAIL = {"purpose": "mail", "algorithm": "Ed25519"}
NOBODY = 65534


@pytest.fixture
def place(agent) -> Path:
    """A directory with a short path."""
    return agent.path.parent


BRIEF_S = 0.3
"""A connect time that a test can wait for."""


def told(path: Path | str, kind: str, connect_timeout: float = 5.0) -> capsign.Unavailable:
    """What a call of each kind of signer hears. The timeout is far longer than a test may take: it
    is not waited for.
    """
    patience = {"timeout": 250, "connect_timeout": connect_timeout}

    async def asked() -> None:
        async with capsign.AsyncSigner(path, **patience) as signer:
            await signer.sign(b"m", **MAIL)

    def asks() -> None:
        with capsign.Signer(path, coalesce=kind == "sync", **patience) as signer:
            signer.sign(b"m", **MAIL)

    with pytest.raises(capsign.Unavailable) as caught:
        asyncio.run(asked()) if kind == "async" else asks()
    assert caught.value.reason == "UPSTREAM_UNREACHABLE"
    assert str(path) in caught.value.message
    assert caught.value.advice
    return caught.value


def make(kind: str, place: Path) -> Path:
    path = place / "x.sock"
    if kind == "a directory":
        path.mkdir()
    elif kind == "a file":
        path.write_text("")
    elif kind == "of a file":
        path.write_text("")
        return path / "agent.sock"
    elif kind == "a loop":
        path.symlink_to(path)
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a dead socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    elif kind == "a socket for datagrams":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(path))
            other.detach()
    elif kind == "a link to nowhere":
        path.symlink_to(place / "nowhere")
    elif kind == "in no directory":
        return place / "no" / "x.sock"
    return path


@pytest.mark.parametrize("client", ["sync", "unary", "async"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("a directory", "is a directory"),
        ("a file", "is a file, and no socket"),
        ("of a file", "is no directory"),
        ("a loop", "levels of symbolic links"),
        ("a pipe", "is a device or a pipe"),
        ("a socket for datagrams", "datagrams"),
    ],
)
def test_what_no_waiting_mends_is_told_at_once(place, kind, words, client):
    """Each of these waited for the whole timeout, and then said "gRPC says DEADLINE_EXCEEDED"."""
    path = make(kind, place)
    assert AgentSocket(str(path), BRIEF_S).blocked() is not None, (
        "before anything is sent or waited for"
    )
    assert words in told(path, client).message


@pytest.mark.parametrize("client", ["sync", "unary", "async"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("absent", "There is no socket"),
        ("in no directory", "There is no directory"),
        ("a link to nowhere", "a link to what does not exist"),
        ("a dead socket", "Nobody listens"),
    ],
)
def test_what_may_still_come_is_waited_for_as_long_as_connecting_takes(place, kind, words, client):
    path = make(kind, place)
    assert AgentSocket(str(path), BRIEF_S).blocked() is None
    assert words in told(path, client, BRIEF_S).message


@contextmanager
def listening(path: Path, answer: bytes) -> Iterator[None]:
    """Another program's server."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        kept = []
        try:
            while True:
                connection, _ = server.accept()
                kept.append(connection)
                if answer and connection.recv(4096):
                    connection.sendall(answer)
        except OSError:
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


@pytest.mark.parametrize("client", ["sync", "unary", "async"])
@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"\0\0\0\1\5"],
    ids=["mute", "http", "ssh-agent"],
)
def test_another_programs_socket_is_named_as_that(place, answer, client):
    path = place / "other.sock"
    with listening(path, answer):
        assert "does not answer as an agent" in told(path, client, BRIEF_S).message


def test_a_grpc_server_that_is_no_agent_is_named_as_that(place):
    path = place / "other.sock"
    from concurrent import futures

    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        for client in ("sync", "unary", "async"):
            assert "is no agent of capsign: it answers UNIMPLEMENTED" in told(path, client).message
    finally:
        server.stop(None).wait()


AS_NOBODY = """
import os, sys, capsign
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    capsign.Signer(timeout=250).sign(b"m", purpose="mail", algorithm="Ed25519")
except capsign.Unavailable as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize(
    ("mode", "socket_mode", "words"),
    [(0o700, 0o666, "may not enter"), (0o755, 0o600, "may not open")],
)
def test_a_socket_that_this_user_may_not_use_names_user_and_mode(agent, mode, socket_mode, words):
    agent.path.parent.chmod(mode)
    agent.path.chmod(socket_mode)
    environment = {**os.environ, "CAPSIGN_SOCKET": str(agent.path)}
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert words in done.stdout, done.stderr
    assert f"User {NOBODY}" in done.stdout
    assert str(agent.path) in done.stdout


@pytest.mark.parametrize(
    ("answered", "wanted", "until"),
    [
        (False, 200.0, 105.0),  # no agent yet: as long as connecting takes, from now
        (False, 103.0, 103.0),  # and never longer than the call has
        (True, 200.0, 200.0),  # one that answered before may be restarting
        (True, 103.0, 103.0),
    ],
)
def test_a_call_waits_for_its_whole_time_only_where_an_agent_has_answered(answered, wanted, until):
    socket_ = AgentSocket("/run/capsign/agent.sock", connect_timeout=5.0)
    socket_.open = answered
    assert socket_.deadline(wanted, now=100.0) == until


def test_an_agent_that_answered_once_is_waited_for_in_full(agent):
    """It may be restarting: that takes longer than connecting."""
    with capsign.Signer(agent.path, timeout=30, connect_timeout=0.5) as signer:
        signer.sign(b"m", **MAIL)
        agent.stop()
        later = threading.Timer(1.0, agent.start)
        later.start()
        assert signer.sign(b"m", **MAIL).value
        later.join()


def test_an_agent_that_goes_away_for_good_is_named_when_the_time_is_up(agent):
    with capsign.Signer(agent.path) as signer:
        signer.sign(b"m", **MAIL)
        agent.stop()
        agent.path.unlink(missing_ok=True)
        with contextlib.suppress(
            capsign.Unknown, capsign.Unavailable
        ):  # sent before the stream was seen to break
            signer.sign(b"m", timeout=0.3, **MAIL)
        with pytest.raises(capsign.Unavailable, match="There is no socket"):
            signer.sign(b"m", timeout=0.5, **MAIL)


async def test_an_agent_that_goes_away_for_good_is_named_to_tasks_too(agent):
    async with capsign.AsyncSigner(agent.path) as signer:
        await signer.sign(b"m", **MAIL)
        await asyncio.to_thread(agent.stop)
        agent.path.unlink(missing_ok=True)
        with contextlib.suppress(
            capsign.Unknown, capsign.Unavailable
        ):  # sent before the stream was seen to break
            await signer.sign(b"m", timeout=0.3, **MAIL)
        with pytest.raises(capsign.Unavailable, match="There is no socket"):
            await signer.sign(b"m", timeout=0.5, **MAIL)


def test_nothing_is_wrong_with_an_agents_socket(agent):
    assert obstacle(str(agent.path)) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"/run/x.sock"', "quotes"),
        ("'/run/x.sock'", "quotes"),
        ('"/run/x.sock', "quotes"),
        ("'unix:/run/x.sock'", "quotes"),
        ("/run/x.sock\n", "line break"),
        ("/run/\nx.sock", "line break"),
        ("/run/x.sock\r\n", "line break"),
        (" /run/x.sock", "blank"),
        ("/run/x.sock ", "blank"),
        ("unix:/run/x.sock ", "blank"),
        ("", "no socket"),
        (" \n", "no socket"),
    ],
)
@pytest.mark.parametrize("signer", [capsign.Signer, capsign.AsyncSigner])
def test_what_came_along_with_a_path_in_the_environment_is_named(monkeypatch, text, words, signer):
    monkeypatch.setenv("CAPSIGN_SOCKET", text)
    with pytest.raises(ValueError, match=words) as caught:
        signer()
    assert "CAPSIGN_SOCKET" in str(caught.value)


def test_a_socket_that_really_is_called_so_is_taken(agent, monkeypatch):
    odd = agent.path.parent / ' "odd" '
    odd.symlink_to(agent.path)
    monkeypatch.setenv("CAPSIGN_SOCKET", str(odd))
    with capsign.Signer() as signer:
        assert signer.sign(b"m", **MAIL).value
