"""An agent's surroundings for tests: credentials, a configuration, and the agent itself in the
test's own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
from capsign_agent import config as configuration
from capsign_agent.agent import Agent
from capsign_agent.timing import USUAL
from capsign_wire import bounds
from capsign_wire.agent.v1 import agent_pb2, agent_pb2_grpc
from support.agent_pki import TestCa
from support.identity_sections import kubernetes_section


class Home:
    """Where one agent lives. Short paths: a socket's path has at most 107 bytes."""

    def __init__(self, root: Path, ca: TestCa, *ports: int) -> None:
        self.root = root
        self.ca = ca
        self.socket = root / "s" / "agent.sock"
        self.health = root / "h" / "health.sock"
        self.journal = root / "j"
        self.ports = ports
        self.timing = USUAL
        self.extra = ""
        self.journal_extra = ""
        self.upstream = ""
        self.identity = f"""
[identity]
source = "files"
[identity.files]
ca_file = "{root}/tls/ca.pem"
cert_file = "{root}/tls/cert.pem"
key_file = "{root}/tls/key.pem"
"""
        self.sockets = f'[[sockets]]\nname = "app"\npath = "{self.socket}"\n'
        ca.write(root / "tls")

    def hurry(self, **changes: Any) -> None:
        """The next agent waits otherwise; see `Timing`."""
        self.timing = dataclasses.replace(self.timing, **changes)

    def write(self) -> Path:
        """The settings file."""
        targets = ", ".join(f'"127.0.0.1:{port}"' for port in self.ports)
        text = f"""
[upstream]
targets = [{targets}]
server_name = "localhost"
{self.upstream}
{self.identity}
[journal]
dir = "{self.journal}"
flush_ms = 50
{self.journal_extra}
[health]
path = "{self.health}"
{self.sockets}
{self.extra}
"""
        path = self.root / "agent.toml"
        path.write_text(text)
        return path

    def in_a_pod(self, enrolment_port: int, bundle: bytes) -> None:
        """Its identity comes from the adapter's authority, by the token in `token`."""
        (self.root / "token").write_text("token-1")
        targets = [f"127.0.0.1:{enrolment_port}"]
        self.identity = kubernetes_section(targets, self.root / "token", bundle, self.root / "i")

    def config(self) -> configuration.Config:
        return configuration.load(self.write(), {})

    def stub(self) -> agent_pb2_grpc.SigningServiceAsyncStub:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", bounds.MAX_ANSWER_BYTES),
        ]
        channel = grpc.aio.insecure_channel(f"unix:{self.socket}", options=options)
        return agent_pb2_grpc.SigningServiceStub(channel)


@contextlib.contextmanager
def home(ca: TestCa, *ports: int) -> Iterator[Home]:
    root = Path(tempfile.mkdtemp(prefix="cs"))
    try:
        yield Home(root, ca, *ports)
    finally:
        shutil.rmtree(root)


@contextlib.asynccontextmanager
async def running(place: Home, *, ready: bool = True) -> AsyncIterator[Agent]:
    """An agent in this loop, drained at the end."""
    agent = Agent(place.config(), place.timing)
    task = asyncio.create_task(agent.run())
    try:
        await until(lambda: not agent.faults() if ready else place.health.exists(), task)
        yield agent
    finally:
        agent.stop()
        await asyncio.wait_for(task, 30)


async def until(
    done: Callable[[], Any], task: asyncio.Task[Any] | None = None, seconds: float = 20.0
) -> None:
    """Wait for a condition, or for the task to fail."""
    async with asyncio.timeout(seconds):
        while not done():
            if task is not None and task.done():
                task.result()
                raise AssertionError("the agent ended")
            await asyncio.sleep(0.005)


async def first_handle(stub: Any) -> agent_pb2.KeyHandle:
    listed = await stub.ListHandles(agent_pb2.ListHandlesRequest())
    return listed.handles[0]
