"""Measures cells on demand in a deployment that stays up: reads and prints a line of JSON for each.

`bench.against` runs this text in another working tree too, so it uses what every commit's `bench`
has. A line has `cell`, `seconds`, and `program`: a client that knows nothing of the tree, or null.
A tree that has neither the cell nor a program for it answers with an empty object. An argument is
text that the settings of each kind of process get, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.cells import CELLS, Result
from bench.deployment import Deployment
from bench.primitives import ed25519_per_second

PRIMITIVE_SECONDS = 0.2


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="capsign-bench-") as scratch:
        deployment = Deployment(Path(scratch), 2)
        try:
            if len(sys.argv) > 1:
                deployment.restart_with(json.loads(sys.argv[1]))
            print(json.dumps({"socket": deployment.socket}), flush=True)
            for line in sys.stdin:
                print(json.dumps(_measure(deployment, json.loads(line))), flush=True)
        finally:
            deployment.close()


def _measure(deployment: Deployment, asked: dict[str, Any]) -> dict[str, Any]:
    name, seconds, program = asked["cell"], float(asked["seconds"]), asked["program"]
    if program is None and name not in CELLS:
        return {}
    before, cpu_before = primitive()
    if name in CELLS:
        result = CELLS[name].run(deployment, seconds)
    else:
        result = _run(deployment, name, program, seconds)
    after, cpu_after = primitive()
    told = dict(result.against((before + after) / 2).plain())
    return {
        **told,
        "e_us": 2e6 / (before + after),
        "e_cpu_us": (cpu_before + cpu_after) / 2,
    }


def primitive(seconds: float = PRIMITIVE_SECONDS) -> tuple[float, float]:
    """Raw signatures a second, and microseconds of CPU of one. While others use the CPUs too, the
    first says how fast the machine is just now, and only the second what CPU can be compared with.
    """
    wall, cpu = time.perf_counter(), time.thread_time()
    rate = ed25519_per_second(seconds)
    busy = (time.thread_time() - cpu) / (time.perf_counter() - wall)
    return rate, busy / rate * 1e6


def _run(deployment: Deployment, name: str, program: list[str], seconds: float) -> Result:
    """What a program of another tree gives here, which prints what `bench.load` prints."""
    before = deployment.cost()
    done = subprocess.run(
        [*program, "--seconds", str(seconds), deployment.socket],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds + 60,
    )
    after = deployment.cost()
    told = json.loads(done.stdout)
    signed = max(told["all_signatures"], 1)
    return Result(
        name,
        sps=told["sps"],
        p50_us=told["p50_us"],
        p99_us=told["p99_us"],
        cpu_us={
            "client": told["cpu_seconds"] / signed * 1e6,
            "agent": (after.agent - before.agent) / signed * 1e6,
            "adapter": (after.adapter - before.adapter) / signed * 1e6,
        },
        rss_mib={"agent": deployment.agent.memory_info().rss / 2**20},
        errors=told["errors"],
    )


if __name__ == "__main__":
    main()
