"""`python -m bench.evidence [cell …]`: what it costs a signature that evidence is watched all the
while, measured in alternating rounds against a deployment of the same tree where it is not.

On both sides every signature has its leaf, and every agent its journal and batches. Off are what
goes on beside that: the agents' looks at the log, and the adapters' reconciliation of both streams.
What is printed is the ratio of *on* to *off*, the median of the rounds and their range.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.cells import CELLS, Result
from bench.deployment import Deployment

DEFAULT = ("one-call-apart", "batch-100x8", "tasks-64")

OFF = {"agent": "\n[log]\nlook_every_s = 3600\n", "adapter": "\n[reconcile]\nenabled = false\n"}
"""Text that the settings of a process get."""

Pair = tuple[Result, Result]
"""Off, on."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.evidence", description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="cell", choices=[*CELLS, []])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds a round and cell")
    arguments = parser.parse_args()
    cells = arguments.cells or DEFAULT
    with tempfile.TemporaryDirectory(prefix="capsign-bench-") as scratch:
        off, on = (Deployment(Path(scratch) / name, 2) for name in ("off", "on"))
        try:
            off.restart_with(OFF)
            seen = {cell: _rounds(cell, (off, on), arguments) for cell in cells}
        finally:
            off.close()
            on.close()
    for cell, pairs in seen.items():
        print(f"{cell:16} {_told(pairs)}")


def _rounds(
    cell: str, deployments: tuple[Deployment, Deployment], arguments: argparse.Namespace
) -> list[Pair]:
    pairs = []
    for number in range(arguments.rounds):
        order = (0, 1) if number % 2 else (1, 0)
        told = {at: CELLS[cell].run(deployments[at], arguments.seconds) for at in order}
        pairs.append((told[0], told[1]))
    return pairs


def _told(pairs: Sequence[Pair]) -> str:
    return "  ".join(
        (
            _ratio("rate", pairs, lambda one: one.sps),
            _ratio("p50", pairs, lambda one: one.p50_us),
            _ratio("agent", pairs, lambda one: one.cpu_us["agent"]),
            _ratio("adapter", pairs, lambda one: one.cpu_us["adapter"]),
        )
    )


def _ratio(name: str, pairs: Sequence[Pair], of: Callable[[Result], float]) -> str:
    ratios = [of(on) / max(of(off), 0.1) for off, on in pairs]
    return f"{name} {statistics.median(ratios):.3f} [{min(ratios):.3f} to {max(ratios):.3f}]"


if __name__ == "__main__":
    main()
