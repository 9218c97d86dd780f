"""Health tells the truth: an adapter that cannot sign says so while it cannot, lives all the while,
and serves when it can.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import capsign
import capsign_agent.probe
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.dev import Dev, stopped
from support.hostile import deployment

pytestmark = pytest.mark.system

SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)
PATIENCE_S = 30


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        yield one


@contextmanager
def asked(dev: Dev):
    """A function that asks one service of the first adapter's health listener."""
    with grpc.insecure_channel(dev.about["adapters"][0]["health"]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        yield (
            lambda service="": (
                stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status
            )
        )


def becomes(ask, status: int) -> None:
    """It says so within bounds; whatever it says meanwhile, it says that it lives."""
    end = time.monotonic() + PATIENCE_S
    while ask() != status:
        assert time.monotonic() < end, f"it never said {status}"
        assert ask("liveness") == SERVING
    assert ask("liveness") == SERVING


@contextmanager
def away(path: Path, to: Path):
    """Something that is not where it was."""
    path.rename(to)
    try:
        yield
    finally:
        to.rename(path)


def token_directory(dev: Dev) -> Path:
    (directory,) = [
        one
        for one in (Path(dev.about["token"]["conf"]).parent / "tokens").iterdir()
        if one.is_dir()
    ]
    return directory


def test_while_the_token_is_away(dev):
    with asked(dev) as ask:
        becomes(ask, SERVING)
        directory = token_directory(dev)
        with away(directory, directory.parents[1] / "away"):
            becomes(ask, NOT_SERVING)
        becomes(ask, SERVING)


def test_while_the_store_is_away(dev):
    store = Path(dev.about["store"].removeprefix("sqlite://"))
    with asked(dev) as ask:
        becomes(ask, SERVING)
        with away(store, store.with_name("away")):
            becomes(ask, NOT_SERVING)
        becomes(ask, SERVING)


def test_after_a_refused_pin(dev):
    """The PIN worked, the session is lost, the next log-in is refused; then the file is put right.
    Nobody restarts anything.
    """
    pin, directory = Path(dev.about["token"]["pin_file"]), token_directory(dev)
    right = pin.read_text()
    with asked(dev) as ask:
        becomes(ask, SERVING)
        with away(directory, directory.parents[1] / "away"):
            pin.write_text("not the right one\n")
            becomes(ask, NOT_SERVING)
        try:
            said = Path(dev.about["adapters"][0]["log"])
            end = time.monotonic() + PATIENCE_S
            while '"faults":"pin_rejected"' not in said.read_text():
                assert time.monotonic() < end
                assert ask() == NOT_SERVING
        finally:
            pin.write_text(right)
        becomes(ask, SERVING)


@pytest.fixture
def small(short_dir):
    """A deployment whose store is on a disk of 8 MiB."""
    if os.geteuid():
        pytest.fail("A small disk is mounted for this test: run it as root.", pytrace=False)
    state = short_dir / "d" / "state"
    state.mkdir(mode=0o700, parents=True)
    (short_dir / "d").chmod(0o700)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "none", str(state)], check=True
    )
    try:
        one = Dev(short_dir / "d")
        try:
            yield one
        finally:
            one.close()
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


def test_while_the_disk_has_no_room(small):
    """Whether the last write still found room in the log that SQLite has already, or none: nearly
    full or full.
    """
    disk = Path(small.about["store"].removeprefix("sqlite://")).parent
    ballast = disk / "ballast"
    with asked(small) as ask:
        becomes(ask, SERVING)
        with ballast.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            becomes(ask, NOT_SERVING)
            assert re.search(
                '"faults":"disk_(nearly_)?full"',
                Path(small.about["adapters"][0]["log"]).read_text(),
            )
        ballast.unlink()
        becomes(ask, SERVING)


def test_a_stopped_adapter_does_not_live(dev):
    with asked(dev) as ask:
        becomes(ask, SERVING)
        with stopped(dev.adapter()), pytest.raises(grpc.RpcError):
            ask("liveness")
        becomes(ask, SERVING)


def probe(dev: Dev, *options: str) -> tuple[int, str]:
    """What the agent's probe says."""
    (path,) = re.findall(
        r'^\[health\]\npath = "(.*)"$', Path(dev.about["agent"]["config"]).read_text(), re.MULTILINE
    )
    command = [sys.executable, "-I", "-S", capsign_agent.probe.__file__, *options, f"{path}.probe"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("asked_for", [True, False], ids=["while calls come", "while nobody asks"])
def test_an_agent_whose_adapter_is_frozen(dev, asked_for):
    """Its connections stand: the agent said SERVING for as long as the adapter was stopped. It
    lives all the while.
    """

    def becomes_ready(wanted: bool) -> None:
        end = time.monotonic() + PATIENCE_S
        while (probe(dev)[0] == 0) != wanted:
            assert time.monotonic() < end, probe(dev)
            assert probe(dev, "--live")[0] == 0

    becomes_ready(True)
    with stopped(dev.adapter()), capsign.Signer(dev.socket()) as signer:
        if asked_for:
            with pytest.raises((capsign.Unknown, capsign.Unavailable)):
                signer.sign(b"m", purpose="jwt", algorithm="ES256", protocol="jwt", timeout=8)
        becomes_ready(False)
        assert re.search("upstream_silent|no_upstream", probe(dev)[1])
    becomes_ready(True)


def test_nobody_else_is_known(dev):
    with asked(dev) as ask, pytest.raises(grpc.RpcError) as caught:
        ask("somebody")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
