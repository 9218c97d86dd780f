"""`python -m bench.peer [cell …]`: the cells of `python -m bench` by the compiled peer, a line of
JSON each: OpenBao's transit engine behind its proxy on a Unix socket. The server's CPU is told as
the adapter's, the proxy's as the agent's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from bench import rounds
from bench.cells import Result
from bench.peer.openbao import OpenBao

SOURCE = Path(__file__).parent / "client"
CLIENT = Path(__file__).parents[2] / "build" / "peer_client"

Program = Callable[[], Sequence[str]]


@cache
def _built() -> str:
    """The client in Go; nothing but Go's own library is in it."""
    subprocess.run(["go", "build", "-o", str(CLIENT), "."], cwd=SOURCE, check=True)
    return str(CLIENT)


def _go(*arguments: str) -> Program:
    return lambda: (_built(), *arguments)


def _tasks(*arguments: str) -> Program:
    return lambda: (sys.executable, "-m", "bench.peer.tasks", *arguments)


LOADS: Mapping[str, Program] = {
    "go-one-call": _go("--callers", "1"),
    "go-unary-8": _go("--callers", "8"),
    "go-unary-64": _go("--callers", "64"),
    "go-unary-256": _go("--callers", "256"),
    "go-unary-64-hs256": _go("--callers", "64", "--algorithm", "HS256"),
    "go-batch-100x1": _go("--batch", "100"),
    "go-batch-100x8": _go("--callers", "8", "--batch", "100"),
    "tasks-64": _tasks("--tasks", "64"),
}
"""By the names of our own cells, and with the same messages."""

STARTUP = "startup"
CELLS = (STARTUP, *LOADS)


def main() -> None:
    arguments = _parser().parse_args()
    program = shutil.which(arguments.bao)
    if program is None:
        raise SystemExit(f"{arguments.bao} is not there: bench/README.md says how to build it")
    with ExitStack() as up:
        directory = up.enter_context(tempfile.TemporaryDirectory(prefix="capsign-peer-"))
        peer = up.enter_context(closing(OpenBao(program, Path(directory))))
        for cell in arguments.cells or CELLS:
            print(json.dumps(_measure(peer, cell, arguments.seconds)), flush=True)


def _measure(peer: OpenBao, cell: str, seconds: float) -> dict[str, Any]:
    """A cell beside the raw primitive, which is measured before it and after it."""
    before, cpu_before = rounds.primitive()
    result = _startup(peer) if cell == STARTUP else _load(peer, cell, seconds)
    after, cpu_after = rounds.primitive()
    return result.against((before + after) / 2, (cpu_before + cpu_after) / 2).plain()


def _startup(peer: OpenBao) -> Result:
    took = peer.startup_us
    return Result(STARTUP, p50_us=took, p99_us=took, rss_mib={"agent": peer.idle_mib})


def _load(peer: OpenBao, cell: str, seconds: float) -> Result:
    proxy, server = _cpu(peer.proxy), _cpu(peer.server)
    done = subprocess.run(
        [*LOADS[cell](), "--seconds", str(seconds), peer.socket],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds + 60,
    )
    told = json.loads(done.stdout)
    spent = {
        "client": told["cpu_seconds"],
        "agent": _cpu(peer.proxy) - proxy,
        "adapter": _cpu(peer.server) - server,
    }
    signed = max(told["all_signatures"], 1)
    return Result(
        cell,
        sps=told["sps"],
        p50_us=told["p50_us"],
        p99_us=told["p99_us"],
        cpu_us={name: seconds / signed * 1e6 for name, seconds in spent.items()},
        rss_mib={"agent": peer.proxy_mib()},
        errors=told["errors"],
    )


def _cpu(process: psutil.Process) -> float:
    """CPU seconds so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.peer", description=__doc__)
    parser.add_argument(
        "cells", nargs="*", choices=[*CELLS, []], metavar="cell", help=f"of: {', '.join(CELLS)}"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds a cell")
    parser.add_argument("--bao", default="bao", help="the program, or its path")
    parser.add_argument("--json", action="store_true", help="as `python -m bench` has it; always")
    return parser


if __name__ == "__main__":
    main()
