"""An agent with the sockets and the memory limit of a pod, under everything that applications can
make it hold.

The kernel's limit is on: an agent above it is killed, and with it signing in all containers of the
pod.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import capsign
import psutil
import pytest
from support import scratch
from support.hostile import deployment
from support.http2 import (
    CONTINUATION,
    HEADERS,
    SERVICE,
    Connection,
    frame,
    grpc_headers,
    literal,
    talk,
)
from support.memory_limit import MemoryLimit, memory_limit

LIMIT_MIB = 128
"""`memoryLimit` of the chart's default profile."""

JOURNAL_BYTES = 8 * 1024 * 1024
"""`agent.journalMaxBytes` of the chart."""

CONTAINERS = 5
HALF = b"\x00" + (4_000_000).to_bytes(4, "big") + bytes(3_900_000)
"""The begin of a message that is almost there."""
COMPRESSED = b"\x01" + HALF[1:]
WHOLE = bytes(5)
"""A message without content."""
JWT = {"purpose": "jwt", "protocol": "jwt"}


class Pod:
    """An agent with a socket for each container."""

    def __init__(self, directory: Path, group: MemoryLimit, agent: psutil.Process) -> None:
        self._directory = directory
        self.group = group
        self.agent = agent

    def socket(self, container: int) -> str:
        return str(self._directory / f"c{container}" / "agent.sock")

    def assert_whole(self) -> None:
        """The agent lives, and every container signs."""
        assert self.group.killed == 0
        assert self.agent.is_running()
        for container in range(CONTAINERS):
            with capsign.Signer(self.socket(container), timeout=30) as signer:
                assert signer.sign(b"still here", algorithm="ES256", **JWT).value


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    # On a disk: what the agent writes to files in memory would count as its own memory.
    with deployment(within=scratch.on_disk()) as dev, memory_limit(LIMIT_MIB) as group:
        dev.end(dev.agent)
        run = Path(dev.about["run"])
        head, *_ = Path(dev.about["agent"]["config"]).read_text().split("[[sockets]]")
        head = re.sub(
            r"^\[journal\]$", f"[journal]\nmax_bytes = {JOURNAL_BYTES}", head, flags=re.MULTILINE
        )
        sockets = (
            f'[[sockets]]\nname = "c{one}"\npath = "{run}/c{one}/agent.sock"\n'
            for one in range(CONTAINERS)
        )
        config = dev.directory / "pod.toml"
        config.write_text(head + "".join(sockets))
        command = [sys.executable, "-m", "capsign_agent", "--config", str(config)]
        with Path(dev.about["agent"]["log"]).open("ab") as log:
            process = subprocess.Popen(command, stderr=log, preexec_fn=group.join)
        try:
            dev.wait_serving(dev.about["agent"]["health"])
            yield Pod(run, group, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(timeout=30)


@contextmanager
def signing(path: str) -> Iterator[list[object]]:
    """Somebody signs one after another meanwhile. Gives what was heard: True for a signature, else
    the error.
    """
    heard: list[object] = []
    ended = threading.Event()

    def sign() -> None:
        with capsign.Signer(path, timeout=20) as signer:
            while not ended.is_set():
                try:
                    heard.append(bool(signer.sign(b"meanwhile", algorithm="ES256", **JWT).value))
                except capsign.CapsignError as error:
                    heard.append(error)

    thread = threading.Thread(target=sign)
    thread.start()
    try:
        yield heard
    finally:
        ended.set()
        thread.join()


def calls(
    method: str,
    data: bytes,
    *headers: tuple[bytes, bytes],
    connections: int = 8,
    streams: int = 100,
    **options: int,
):
    """So many calls of a method on each of so many connections, which send this and then
    nothing.
    """
    block = grpc_headers(SERVICE + method.encode(), *headers)

    def begin(path: str) -> list[Connection]:
        made = [Connection(path, **options) for _ in range(connections)]
        for one in made:
            for _ in range(streams):
                one.open(block, data)
        return made

    return begin


def deaf(begin: Callable[[str], list[Connection]]) -> Callable[[str], list[Connection]]:
    """The same, and nothing that the agent says is taken from the socket."""

    def begin_deaf(path: str) -> list[Connection]:
        made = begin(path)
        for one in made:
            one.reads = False
        return made

    return begin_deaf


def half_headers(path: str) -> list[Connection]:
    """A header block that does not end, on each of many connections."""
    made = [Connection(path) for _ in range(100)]
    for one in made:
        one.say(frame(HEADERS, 0, 1, grpc_headers(SERVICE + b"Sign")))
        one.say(
            b"".join(
                frame(CONTINUATION, 0, 1, literal(b"x-%d" % number, bytes(900)))
                for number in range(14)
            )
        )
    return made


MANY = [(b"x-%d" % number, b"v" * 1000) for number in range(7)]

SHAPES = {
    "unary": calls("Sign", HALF),
    "unary, compressed": calls("Sign", COMPRESSED, (b"grpc-encoding", b"gzip")),
    "batches": calls("SignBatch", HALF),
    "questions": calls("Verify", HALF),
    "a method without content": calls("ListHandles", HALF),
    "streams": calls("SignStream", HALF),
    "streams, many connections": calls("SignStream", HALF, connections=60, streams=20),
    "a method that is not there": calls("Export", HALF),
    "as much as the window takes": calls("SignStream", HALF[:16_384], connections=40),
    "much metadata": calls("SignStream", b"", *MANY, connections=20),
    "headers that do not end": half_headers,
    "answers that are not taken": calls("ListHandles", WHOLE, connections=20, window=0),
    "answers to the deaf": deaf(calls("ListHandles", WHOLE, connections=20)),
    "refusals to the deaf": deaf(calls("Export", WHOLE, connections=20)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_unfinished_or_unread_is_bounded(pod, shape):
    """Eight connections took 1.6 GiB. Each shape comes from one container; the others sign on and
    hear no error.
    """
    attackers = SHAPES[shape](pod.socket(0))
    with signing(pod.socket(1)) as heard:
        talk(attackers, 2.0)
    for one in attackers:
        one.close()
    assert heard
    assert all(one is True for one in heard), [one for one in heard if one is not True][:3]
    pod.assert_whole()


def test_large_messages_from_every_container_fit(pod):
    """60 KB messages, six threads in each of five containers, each with a signer of its own: the
    agent was killed within its documented bound. Who finds no room hears so and tries again.
    """
    message = os.urandom(60_000)
    failed: list[object] = []

    def sign(path: str) -> None:
        with capsign.Signer(path, timeout=60) as signer:
            outcomes = signer.sign_many([message] * 60, algorithm="Ed25519", **JWT)
            failed.extend(one for one in outcomes if isinstance(one, capsign.CapsignError))

    threads = [
        threading.Thread(target=sign, args=(pod.socket(number % CONTAINERS),))
        for number in range(6 * CONTAINERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # On a slow machine some run into a limit of time, the agent's or their stream's. That the agent
    # itself has not ended is looked at below.
    assert all(
        isinstance(one, capsign.Unknown)
        and ("ANSWER_LATE" in str(one) or "ANSWER_LOST" in str(one))
        for one in failed
    ), failed[:3]
    pod.assert_whole()


STORMS = {
    "unary": calls("Sign", HALF, connections=50),
    "streams": calls("SignStream", HALF[:16_384], connections=50),
    "much metadata": calls("SignStream", b"", *MANY, connections=50),
    "whole calls": calls("ListHandles", WHOLE, connections=50),
}


@pytest.mark.parametrize("shape", STORMS)
def test_a_storm_of_connections_from_every_container_fits(pod, shape):
    """Fifty connections of each of five containers, opened within a second, with as many calls as
    they may have: gRPC takes those in threads of its own, before we see any, and 145 to 180 MiB
    were needed.
    """
    attackers = [
        one for container in range(CONTAINERS) for one in STORMS[shape](pod.socket(container))
    ]
    talk(attackers, 2.0)
    for one in attackers:
        one.close()
    pod.assert_whole()


ATTACKS_OF_ALL = {
    "unary": calls("Sign", HALF),
    "streams": calls("SignStream", HALF),
    "as much as the window takes": calls("SignStream", HALF[:16_384], connections=8),
    "much metadata": calls("SignStream", b"", *MANY, connections=4),
    "answers that are not taken": calls("ListHandles", WHOLE, connections=4, window=0),
    "refusals to the deaf": deaf(calls("Export", WHOLE, connections=4)),
}


def test_every_container_attacks_at_once(pod):
    """Bounds of each kind and each socket were more than the container's limit together: one kind
    from all sockets, and then several kinds at once, had the kernel end the agent.
    """
    for begin in (
        *ATTACKS_OF_ALL.values(),
        lambda path: [one for make in ATTACKS_OF_ALL.values() for one in make(path)[:2]],
    ):
        attackers = [one for container in range(CONTAINERS) for one in begin(pod.socket(container))]
        talk(attackers, 1.5)
        for one in attackers:
            one.close()
        pod.assert_whole()
