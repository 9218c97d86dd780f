"""The agent as a process: start, probe, drain, kill -9, and what it refuses to start with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import capsign_agent
import grpc
import psutil
import pytest
from capsign_evidence import told_calls
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from capsign_wire.types.v1 import signing_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.agent_home import Home, first_handle, until
from support.dev import stopped
from support.fake_adapter import FakeAdapter

pytestmark = pytest.mark.system

PROBE = Path(capsign_agent.__file__).parent / "probe.py"


def command(place: Home, *more: str) -> list[str]:
    return [sys.executable, "-m", "capsign_agent", "--config", str(place.write()), *more]


def started(place: Home) -> subprocess.Popen[bytes]:
    with (place.root / "log").open("ab") as log:
        return subprocess.Popen(command(place), stderr=log)


def finished(place: Home, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(place, *more), capture_output=True, text=True, check=False, timeout=30
    )


@contextlib.asynccontextmanager
async def process(place: Home, *, ready: bool = True) -> AsyncIterator[subprocess.Popen[bytes]]:
    child = started(place)
    try:
        if ready:
            await until(lambda: probe(place).returncode == 0)
        yield child
    finally:
        child.kill()
        child.wait()


def probe(place: Home, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-I", "-S", str(PROBE), *options, f"{place.health}.probe"]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


async def sign(stub: Any, count: int) -> signing_pb2.SignedGroup:
    items = [agent_pb2.SignItem(intent_id=new_intent_id(), message=b"m") for _ in range(count)]
    group = agent_pb2.SignGroup(
        handle_id=(await first_handle(stub)).id, algorithm=alg.ALGORITHM_ED25519, items=items
    )
    return (await stub.SignBatch(agent_pb2.SignBatchRequest(groups=[group]))).groups[0]


async def test_sigterm_finishes_and_flushes_and_says_close(
    place: Home, adapter: FakeAdapter
) -> None:
    async with process(place) as child:
        assert all(item.signatures for item in (await sign(place.stub(), 10)).items)
        child.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(child.wait, 20) == 0
    assert adapter.records[0].kind == evidence_pb2.AUDIT_KIND_OPEN
    assert adapter.records[-1].kind == evidence_pb2.AUDIT_KIND_CLOSE
    assert not place.socket.exists()
    assert not place.health.exists()


async def test_records_survive_kill_9_and_arrive_once_and_in_order(
    place: Home, adapter: FakeAdapter
) -> None:
    """While evidence cannot be delivered the agent signs on and is killed; its next life delivers
    what the first one did.
    """
    adapter.faults.audit = lambda _: fail.REASON_STORE_UNAVAILABLE
    async with process(place) as child:
        assert all(item.signatures for item in (await sign(place.stub(), 50)).items)
        child.kill()
        child.wait()
    assert adapter.records == []
    adapter.faults.audit = lambda _: 0
    async with process(place) as child:
        await sign(place.stub(), 5)
        await until(lambda: len(adapter.boots) == 2)
        child.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(child.wait, 20) == 0
    first, second = adapter.boots.values()
    [outcome] = [
        record for record in first.records if record.kind == evidence_pb2.AUDIT_KIND_OUTCOME
    ]
    assert told_calls.count([outcome]) == 50
    assert first.records[-1].kind != evidence_pb2.AUDIT_KIND_CLOSE
    assert second.records[-1].kind == evidence_pb2.AUDIT_KIND_CLOSE
    assert [one.name for one in place.journal.iterdir() if one.is_dir()] == []


async def test_a_second_agent_does_not_take_the_socket_over(
    place: Home, adapter: FakeAdapter
) -> None:
    async with process(place):
        second = finished(place)
        assert second.returncode == 2
        assert "Another agent" in second.stderr
        assert (await sign(place.stub(), 1)).items[0].signatures


async def test_health_says_how_it_is_and_outlives_a_probe_that_leaves(
    place: Home, adapter: FakeAdapter
) -> None:
    async with process(place, ready=True):
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as rude:
                rude.connect(f"{place.health}.probe")
        async with grpc.aio.insecure_channel(f"unix:{place.health}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            serving = health_pb2.HealthCheckResponse.SERVING
            for service in ("", "capsign.agent.v1.SigningService"):
                assert (
                    await stub.Check(health_pb2.HealthCheckRequest(service=service))
                ).status == serving
        assert probe(place).stdout == "SERVING\n"
        place.socket.unlink()
        answer = probe(place)
        assert (answer.returncode, answer.stdout) == (1, "NOT_SERVING socket_replaced\n")
        assert probe(place, "--live").returncode == 0
    assert probe(place).returncode == 1
    assert probe(place, "--live").returncode == 1


async def test_an_agent_without_an_adapter_lives_and_one_that_is_stopped_does_not(
    place: Home, adapter: FakeAdapter
) -> None:
    """No restart mends an adapter that is away; a process that the kernel does not run is of no use
    to anybody.
    """
    adapter.stop()
    async with process(place, ready=False) as child:
        await until(place.health.with_name(f"{place.health.name}.probe").exists)
        assert probe(place).returncode == 1
        assert probe(place, "--live").returncode == 0
        with stopped(psutil.Process(child.pid)):
            assert probe(place, "--live").returncode == 1
        assert probe(place, "--live").returncode == 0
    for wrong in (("--live", "--live"), ("--dead",)):
        assert probe(place, *wrong).returncode == 2


async def test_it_leaves_no_core_and_loads_nothing_that_it_does_not_need(
    place: Home, adapter: FakeAdapter
) -> None:
    async with process(place) as child:
        for _ in range(10):
            await sign(place.stub(), 100)
        seen = psutil.Process(child.pid)
        assert seen.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        loaded = {Path(one.path).name.split(".")[0] for one in seen.memory_maps()}
        assert not {
            name for name in loaded if name.startswith(("_rust", "biscuit_auth"))
        }  # nothing that is not needed


def test_check_config_says_what_is_wrong_and_does_nothing(place: Home) -> None:
    good = finished(place, "--check-config")
    assert (good.returncode, good.stdout) == (0, "The configuration is good.\n")
    place.extra = "[nonsense]\nkey = 1"
    bad = finished(place, "--check-config")
    assert bad.returncode == 2
    assert "nonsense" in bad.stderr
    assert "Traceback" not in bad.stderr
    assert not place.journal.exists()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda tls: (tls / "key.pem").chmod(0o644), "chmod 600"),
        (lambda tls: (tls / "key.pem").unlink(), "key.pem"),
        (lambda tls: (tls / "cert.pem").write_text("nothing"), "PEM"),
        (lambda tls: (tls / "ca.pem").unlink(), "ca.pem"),
    ],
)
def test_credentials_that_cannot_be_used_are_named(place: Home, spoil: Any, expected: str) -> None:
    spoil(place.root / "tls")
    bad = finished(place)
    assert bad.returncode == 2
    assert expected in bad.stderr
    assert "Traceback" not in bad.stderr


async def test_every_log_line_is_an_event_and_none_quotes_a_secret(
    place: Home, adapter: FakeAdapter
) -> None:
    async with process(place) as child:
        await sign(place.stub(), 3)
        child.send_signal(signal.SIGTERM)
        await asyncio.to_thread(child.wait, 20)
    text = (place.root / "log").read_text()
    events = [json.loads(line)["event"] for line in text.splitlines() if line.startswith("{")]
    assert events[-1] == "agent.stopped"
    assert "agent.serving" in events
    assert "PRIVATE" not in text
    assert os.fspath(place.root / "tls" / "key.pem") not in text
