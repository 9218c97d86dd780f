"""A real deployment for system tests: what `capsign dev up` starts, with handles on its
processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.store.open import open_store
from capsign_evidence.leaf_reader import Entry, Signed, SignedTwice, decode
from grpc_health.v1 import health_pb2, health_pb2_grpc


class Dev:
    """Adapters, an agent, a token and a store, in processes of their own."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 1,
        arguments: tuple[str, ...] = (),
        release: Mapping[str, str] | None = None,
    ) -> None:
        """`release`: the environment in which Python finds another release; what is started later
        is of now.
        """
        self.directory = directory
        self._release = dict(release or {})
        told = self._cli("up", "--workers", str(workers), *arguments, "-o", "json")
        self.about: dict[str, Any] = json.loads(told)
        self._started: list[subprocess.Popen] = []
        self._adapters: list[subprocess.Popen] = []

    def socket(self, name: str = "app") -> str:
        return self.about["sockets"][name]

    @property
    def agent(self) -> psutil.Process:
        return psutil.Process(self.about["agent"]["pid"])

    def adapter(self, index: int = 0) -> psutil.Process:
        return psutil.Process(self.about["adapters"][index]["pid"])

    def opened_store(self) -> Store:
        """The store itself, past every adapter. Close it."""
        password = self.about["store_password_file"]
        return open_store(self.about["store"], password_file=Path(password) if password else None)

    def entries(self) -> list[Entry]:
        """Every entry of the log, read from the store itself."""
        store = self.opened_store()
        try:
            entries: list[Any]
            size, entries = store.control().tree_size, []
            while len(entries) < size:
                entries += store.entries(len(entries), 4096)
            return [decode(entry) for entry in entries]
        finally:
            store.close()

    def signed_intents(self) -> dict[bytes, list[bytes]]:
        """For each intent in the log, the hashes of its signatures: one each, or I5 is broken."""
        found: dict[bytes, list[bytes]] = {}
        for entry in self.entries():
            if isinstance(entry, Signed | SignedTwice):
                found.setdefault(entry.intent_id, []).append(entry.signature_hash)
        return found

    def end(self, process: psutil.Process, number: int = signal.SIGTERM) -> None:
        """Signal a process of this deployment and wait until it is gone."""
        process.send_signal(number)
        process.wait(timeout=30)

    def start_adapter(
        self,
        index: int = 0,
        *,
        module: str = "capsign_adapter",
        under: tuple[str, ...] = (),
        **environment: str,
    ) -> subprocess.Popen:
        """Start a replica with its own configuration, perhaps through another module, or `under` a
        command. Does not wait.
        """
        about = self.about["adapters"][index]
        process = self._start(
            module, about, {"SOFTHSM2_CONF": self.about["token"]["conf"]} | environment, under
        )
        self._adapters.append(process)
        return process

    def start_agent(self, *, module: str = "capsign_agent", **environment: str) -> subprocess.Popen:
        """Start the agent with its own configuration, perhaps through another module. Does not
        wait.
        """
        return self._start(module, self.about["agent"], environment)

    def start_agent_of(self, config: Path, log: Path, **environment: str) -> subprocess.Popen:
        """Start another agent, with this configuration. Does not wait."""
        about = {"config": str(config), "log": str(log)}
        return self._start("capsign_agent", about, environment)

    def _start(
        self,
        module: str,
        about: dict[str, Any],
        environment: dict[str, str],
        under: tuple[str, ...] = (),
    ) -> subprocess.Popen:
        command = [*under, sys.executable, "-m", module, "--config", about["config"]]
        paths = os.pathsep.join(
            [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        )
        with Path(about["log"]).open("ab") as log:
            process = subprocess.Popen(
                command, stderr=log, env=os.environ | {"PYTHONPATH": paths} | environment
            )
        self._started.append(process)
        return process

    def replace_adapter(
        self, *, module: str = "capsign_adapter", **environment: str
    ) -> subprocess.Popen:
        """End the first replica, whichever process that is by now, start another in its place and
        wait until it serves.
        """
        if self._adapters:
            _end(self._adapters)
        else:
            self.end(self.adapter())
        process = self.start_adapter(module=module, **environment)
        self.wait_serving(self.about["adapters"][0]["health"])
        return process

    def wait_serving(self, address: str, seconds: float = 30.0) -> None:
        """Until grpc.health.v1 at this address says SERVING. When it does not, the error says what
        the processes said.
        """
        quick = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 250)]
        end = time.monotonic() + seconds
        with grpc.insecure_channel(address, quick) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < end:
                try:
                    answer = stub.Check(
                        health_pb2.HealthCheckRequest(), timeout=2.0, wait_for_ready=True
                    )
                except grpc.RpcError:
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        ended = [
            (str(process.args), process.returncode)
            for process in self._started
            if process.poll() is not None
        ]
        logs = [Path(one["log"]) for one in (*self.about["adapters"], self.about["agent"])]
        said = "\n".join(f"{log.name}: ...{log.read_text()[-1000:]}" for log in logs)
        raise TimeoutError(f"{address} is not serving; ended: {ended}\n{said}")

    def close(self) -> None:
        # The agent first, whoever started it: with no adapter left it would wait to deliver its
        # journal.
        _end([process for process in self._started if process not in self._adapters])
        self._cli("down")
        _end(self._adapters)

    def _cli(self, *arguments: str) -> str:
        command = [
            sys.executable,
            "-m",
            "capsign_cli",
            "dev",
            *arguments[:1],
            "--dir",
            str(self.directory),
            *arguments[1:],
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | self._release
        )
        if done.returncode and arguments[0] == "up":
            raise RuntimeError(f"capsign dev {arguments[0]} failed:\n{done.stderr}")
        return done.stdout


def _end(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)


def _runs(process: psutil.Process) -> bool:
    """Whether a thread of it is not stopped yet: each stops when the kernel next looks at it."""
    try:
        stats = [one.read_text() for one in Path("/proc").glob(f"{process.pid}/task/*/stat")]
    except OSError:  # a thread ended meanwhile
        return True
    return any(stat.rpartition(")")[2].split()[0] != "T" for stat in stats)


@contextmanager
def stopped(process: psutil.Process):
    """A process that the kernel does not run for a while; from the first line on, none of it."""
    process.suspend()
    try:
        while _runs(process):
            os.sched_yield()
        yield
    finally:
        process.resume()
