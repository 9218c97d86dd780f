"""How long an agent takes from exec to its first answer, and what it weighs then."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import psutil
from capsign_wire import channels, unix_socket
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.agent.v1 import agent_pb2_grpc

from bench.deployment import Deployment


def first_rpc(deployment: Deployment, times: int) -> tuple[list[float], float]:
    """Microseconds of each start, and the resident size after the first RPC, MiB.

    The clock stops when ListHandles has answered with handles, so mTLS to the adapter and the
    minting are in it.
    """
    measured: list[float] = []
    resident = 0.0
    for _ in range(times):
        scratch = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
        try:
            config, socket = _own_config(Path(deployment.description["agent"]["config"]), scratch)
            began = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "capsign_agent", "--config", str(config)],
                stderr=subprocess.DEVNULL,
            )
            try:
                _first_answer(socket)
                measured.append((time.perf_counter() - began) * 1e6)
                resident = psutil.Process(process.pid).memory_info().rss / 2**20
            finally:
                process.terminate()
                process.wait()
        finally:
            shutil.rmtree(scratch)
    return measured, resident


def _own_config(config: Path, scratch: Path) -> tuple[Path, Path]:
    """The deployment's agent configuration with sockets and journal of its own."""
    text = config.read_text()
    for part in ("run", "state"):
        text = text.replace(f"{config.parent}/{part}/", f"{scratch}/{part}/")
    copy = scratch / "agent.toml"
    copy.write_text(text)
    return copy, next(
        Path(line.split('"')[1])
        for line in text.splitlines()
        if line.startswith("path") and "/app/" in line
    )


def _first_answer(socket: Path) -> None:
    while not socket.exists():
        time.sleep(0.001)
    with channels.insecure(unix_socket.target(socket)) as channel:
        stub = agent_pb2_grpc.SigningServiceStub(channel)
        while True:
            try:
                stub.ListHandles(pb.ListHandlesRequest(), timeout=10, wait_for_ready=True)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                time.sleep(0.001)  # it listens and waits for its handles
            else:
                return
