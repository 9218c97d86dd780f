"""A process that is asked to end does, however the kernel delivers the asking."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import grpc
import psutil
import pytest
from capsign_wire.agent.v1 import agent_pb2, agent_pb2_grpc
from support.dev import Dev
from support.hostile import deployment

pytestmark = pytest.mark.system

TRIES = 5
"""Of as many, half or more were not heard."""


def ends_after_a_stop(process: psutil.Process) -> None:
    """It is stopped, gets SIGTERM, and goes on: any of its threads may be the one that hears it."""
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):
        process.send_signal(number)
    process.wait(timeout=20)


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        yield one


def start_adapter(dev: Dev) -> psutil.Process:
    child = dev.start_adapter()
    dev.wait_serving(dev.about["adapters"][0]["health"])
    return psutil.Process(child.pid)


def start_agent(dev: Dev) -> psutil.Process:
    child = dev.start_agent()
    with grpc.insecure_channel(f"unix:{dev.socket()}") as channel:
        listed = agent_pb2_grpc.SigningServiceStub(channel).ListHandles
        listed(agent_pb2.ListHandlesRequest(), timeout=30, wait_for_ready=True)
    return psutil.Process(child.pid)


@pytest.mark.parametrize("start", [start_agent, start_adapter])
def test_a_process_that_was_stopped_hears_sigterm(dev, start):
    """The adapter's main thread waited for a lock, the signal came to another thread, and it served
    on for ever.
    """
    process = dev.agent if start is start_agent else dev.adapter()
    for _ in range(TRIES):
        ends_after_a_stop(process)
        process = start(dev)


def test_an_adapter_whose_token_hangs_ends_in_time_and_says_so(dev, tmp_path):
    """Its tickers, its last log-out and its token thread were waited for one after the other, ten
    seconds each: the kubelet killed it without a word.
    """
    hangs = tmp_path / "hangs"
    adapter = dev.replace_adapter(
        module="support.hanging_adapter",
        CAPSIGN_TEST_HANGS=str(hangs),
        CAPSIGN_ADAPTER_DRAIN_SECONDS="1",
    )
    hangs.touch()
    pause = threading.Event()
    while not Path(f"{hangs}.begun").exists():  # whoever looks at the token, or signs a checkpoint
        assert adapter.poll() is None
        pause.wait(0.05)
    adapter.send_signal(signal.SIGTERM)
    assert adapter.wait(timeout=20) == 1
    assert '"adapter.cut_short"' in Path(dev.about["adapters"][0]["log"]).read_text()
