"""The cells: each one way to sign, measured for some seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

from bench import go_client, primitives
from bench.ceiling import ceiling
from bench.deployment import Deployment
from bench.dual_sign import signing_twice
from bench.startup import first_rpc


@dataclass(frozen=True)
class Result:
    """What a cell gave. Times are microseconds; `cpu_us` is CPU a signature by process; `ratio` is
    to raw Ed25519.
    """

    cell: str
    sps: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    cpu_us: Mapping[str, float] = field(default_factory=dict)
    rss_mib: Mapping[str, float] = field(default_factory=dict)
    errors: int = 0
    batch: float = 0.0
    """Leaves of the evidence log a commit."""
    ratio: float = 0.0
    p50_e: float = 0.0
    p99_e: float = 0.0
    e_us: float = 0.0
    """1 E, measured beside the cell."""
    e_cpu_us: float = 0.0
    """The CPU time in it: less, where others use the CPUs too."""

    def against(self, raw_per_second: float, raw_cpu_us: float = 0.0) -> Result:
        """With its ratios to the raw primitive: how often a second, and CPU microseconds of one."""
        unit_us = 1e6 / raw_per_second
        return replace(
            self,
            ratio=self.sps / raw_per_second,
            p50_e=self.p50_us / unit_us,
            p99_e=self.p99_us / unit_us,
            e_us=unit_us,
            e_cpu_us=raw_cpu_us,
        )

    def plain(self) -> dict[str, Any]:
        """For JSON, rounded to what the measurement can tell."""
        rounded = {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }
        rounded["cpu_us"] = {name: round(value, 1) for name, value in self.cpu_us.items()}
        rounded["rss_mib"] = {name: round(value, 1) for name, value in self.rss_mib.items()}
        return rounded


@dataclass(frozen=True)
class Cell:
    """A way to sign. `story` says what it stands for; `needs` is called beforehand, and raises
    GoMissingError where the cell cannot be run. `program` is the command of a client that knows
    nothing of this tree.
    """

    name: str
    story: str
    run: Callable[[Deployment, float], Result]
    needs: Callable[[], object] = lambda: None
    program: Callable[[], Sequence[str]] | None = None


def _raw(name: str, story: str, measure: Callable[[float], float]) -> Cell:
    return Cell(name, story, lambda _, seconds: _single(name, measure(seconds)))


def _single(name: str, per_second: float) -> Result:
    return Result(name, sps=per_second, p50_us=1e6 / per_second, p99_us=1e6 / per_second)


PYTHON_LOAD = (sys.executable, "-m", "bench.load")
PLACES = 192
"""`listen.streams` of an adapter to which 64 pods of one workload connect: three quarters of them
may be one workload's.
"""
AGENTS = (sys.executable, "-m", "bench.agents")


def _load(name: str, story: str, *arguments: str) -> Cell:
    """An application in Python, through our library."""
    return Cell(
        name,
        story,
        lambda deployment, seconds: _run_load(name, PYTHON_LOAD, arguments, deployment, seconds),
    )


@cache
def _go_load() -> str:
    return str(go_client.build())


def _go(name: str, story: str, *arguments: str) -> Cell:
    """An application in Go: grpc-go, and stubs of its own."""
    return Cell(
        name,
        story,
        lambda deployment, seconds: _run_load(name, (_go_load(),), arguments, deployment, seconds),
        needs=_go_load,
        program=lambda: (_go_load(), *arguments),
    )


def _agents(name: str, story: str, *arguments: str) -> Cell:
    """Agents in a process of their own: what it takes is told as the agent's."""

    def run(deployment: Deployment, seconds: float) -> Result:
        deployment.have_places(PLACES)
        result = _run_load(name, AGENTS, arguments, deployment, seconds)
        spent = {**result.cpu_us, "agent": result.cpu_us["client"], "client": 0.0}
        return replace(result, cpu_us=spent, rss_mib={})

    return Cell(name, story, run)


def _apart(cell: Cell) -> Cell:
    """The same with pod and adapters on CPUs of their own."""

    def run(deployment: Deployment, seconds: float) -> Result:
        with deployment.apart():
            return cell.run(deployment, seconds)

    return replace(cell, run=run)


def _twice(cell: Cell) -> Cell:
    """The same while each call is answered by two versions of the key."""

    def run(deployment: Deployment, seconds: float) -> Result:
        with signing_twice(deployment):
            return cell.run(deployment, seconds)

    return replace(cell, run=run)


def _run_load(
    name: str,
    program: tuple[str, ...],
    arguments: tuple[str, ...],
    deployment: Deployment,
    seconds: float,
) -> Result:
    """`program` is given the application's socket, and the whole deployment on standard input."""
    command = [*program, "--seconds", str(seconds), *arguments, deployment.socket]
    before = deployment.cost()
    about = json.dumps(deployment.description)
    done = subprocess.run(
        command, check=True, input=about, stdout=subprocess.PIPE, text=True, timeout=seconds + 60
    )
    after = deployment.cost()
    told = json.loads(done.stdout)
    signed = max(told["all_signatures"], 1)
    cpu = {
        "client": told["cpu_seconds"] / signed * 1e6,
        "agent": (after.agent - before.agent) / signed * 1e6,
        "adapter": told.get("adapter_cpu_seconds", after.adapter - before.adapter) / signed * 1e6,
    }
    rss = {"agent": deployment.agent.memory_info().rss / 2**20}
    batch = (after.leaves - before.leaves) / max(after.commits - before.commits, 1)
    return Result(
        name, told["sps"], told["p50_us"], told["p99_us"], cpu, rss, told["errors"], batch
    )


def _startup(deployment: Deployment, seconds: float) -> Result:
    times_us, rss = first_rpc(deployment, 5)
    return Result(
        "startup",
        p50_us=sorted(times_us)[len(times_us) // 2],
        p99_us=max(times_us),
        rss_mib={"agent": rss},
    )


CELLS: Mapping[str, Cell] = {
    cell.name: cell
    for cell in (
        _raw("raw-ed25519", "Ed25519 by cryptography, one thread", primitives.ed25519_per_second),
        _raw("raw-es256", "ES256 by cryptography, one thread", primitives.es256_per_second),
        _raw("raw-hs256", "HMAC-SHA256, one thread", primitives.hs256_per_second),
        Cell("ceiling", "one process: parse, decide, sign, commit, answer; 64 a batch", ceiling),
        _load("one-call", "one caller of the library, one call at a time", "--threads", "1"),
        _apart(
            _load(
                "one-call-apart",
                "the same, pod and adapters on CPUs of their own",
                "--threads",
                "1",
            )
        ),
        _load("unary-1", "one thread, one RPC a signature", "--threads", "1", "--no-coalesce"),
        _load("unary-8", "8 threads, one RPC a signature", "--threads", "8", "--no-coalesce"),
        _load("unary-64", "64 threads, one RPC a signature", "--threads", "64", "--no-coalesce"),
        _load("batch-100x1", "one caller, 100 a call", "--threads", "1", "--batch", "100"),
        _load("batch-100x8", "8 callers, 100 a call", "--threads", "8", "--batch", "100"),
        _load("threads-64", "64 threads through the library", "--threads", "64"),
        _load("tasks-64", "64 asyncio tasks through the library", "--tasks", "64"),
        _load(
            "tasks-64-uncoalesced",
            "64 asyncio tasks, one RPC a signature",
            "--tasks",
            "64",
            "--no-coalesce",
        ),
        _load("tasks-64-es256", "64 asyncio tasks, ES256", "--tasks", "64", "--algorithm", "ES256"),
        _twice(
            _load("dual-sign", "the same, answered twice", "--tasks", "64", "--algorithm", "ES256")
        ),
        _load("tasks-64-hs256", "64 asyncio tasks, HS256", "--tasks", "64", "--algorithm", "HS256"),
        _go("go-one-call", "a Go client, one call at a time", "--callers", "1"),
        _go("go-unary-8", "8 goroutines, one RPC a signature", "--callers", "8"),
        _go("go-unary-64", "64 goroutines, one RPC a signature", "--callers", "64"),
        _go("go-unary-256", "256 goroutines, one connection", "--callers", "256"),
        _go("go-unary-64-hs256", "the same, HS256", "--callers", "64", "--algorithm", "HS256"),
        _go("go-unary-1000", "1,000 goroutines, one connection", "--callers", "1000"),
        _go("go-batch-100x1", "a Go client, 100 a call", "--batch", "100"),
        _go("go-batch-100x8", "8 goroutines, 100 a call", "--callers", "8", "--batch", "100"),
        _agents("agents-64", "64 agents with one call each, at all adapters", "--agents", "64"),
        Cell("startup", "from exec of an agent to the answer of its first RPC", _startup),
    )
}
