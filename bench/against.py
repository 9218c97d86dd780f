"""`python -m bench.against TREE [cell …]`: this working tree against another one, in alternating
rounds.

Both deployments stay up, and each round measures every cell in both, in turn first. What is printed
is the ratio of this tree to the other, the median of the rounds and their range: of CPU a signature
in agent and adapters, which a busy machine distorts least, and of signatures a second.

With `--table` the cells of `bench.issue_table` are measured, and its table is printed: before is
TREE, after is this tree. Clients of Go are built here for both; what TREE has no cell for is left
out.

With `--engine native` the agents of both trees serve with that engine. With `--table` too, TREE and
this tree serve with grpcio, and a third deployment, of this tree, with the engine: a column more.

With `--peer CMD` the table has what another program gives too (`python -m bench.peer`), which is
run after each round.

TREE is a working tree of any commit with a `.venv` of its own (`git worktree add`, `make venv`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import bench.rounds
from bench import engine
from bench.cells import CELLS
from bench.issue_table import CELLS_OF_TABLE, markdown
from bench.other_program import OtherProgram

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ("one-call-apart", "unary-8", "batch-100x8", "tasks-64")

Told = dict[str, Any]


class Tree:
    """A deployment of one working tree, whose agent serves with one engine."""

    def __init__(self, root: Path, serving: str = engine.DEFAULT) -> None:
        text = Path(bench.rounds.__file__).read_text()
        python = root / ".venv" / "bin" / "python"
        settings = [] if serving == engine.DEFAULT else [json.dumps(engine.settings(serving))]
        self._process = subprocess.Popen(
            [str(python if python.exists() else sys.executable), "-c", text, *settings],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()  # it is up

    def measure(self, cell: str, seconds: float) -> Told:
        """One round of a cell."""
        assert self._process.stdin is not None
        program = CELLS[cell].program
        asked = {
            "cell": cell,
            "seconds": seconds,
            "program": None if program is None else [*program()],
        }
        self._process.stdin.write(f"{json.dumps(asked)}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the deployment."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _answer(self) -> Told:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("A deployment ended; what it said is above.")
        told: Told = json.loads(line)
        return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=__doc__)
    parser.add_argument("tree", type=Path)
    parser.add_argument("cells", nargs="*", metavar="cell", choices=[*CELLS, []])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds a round and cell")
    parser.add_argument("--table", action="store_true", help="print the table of what is wanted")
    parser.add_argument("--peer", metavar="CMD", help="with --table: one that prints cells as JSON")
    parser.add_argument(
        "--engine",
        choices=engine.ENGINES,
        default=engine.DEFAULT,
        help="what serves the applications' sockets",
    )
    arguments = parser.parse_args()
    engine.demand(arguments.engine)
    cells = arguments.cells or (CELLS_OF_TABLE if arguments.table else DEFAULT)
    with ExitStack() as up:
        trees = [
            up.enter_context(closing(Tree(root, serving)))
            for root, serving in _columns(arguments.tree.resolve(), arguments)
        ]
        seen, of_peer = _rounds(trees, cells, arguments)
    if arguments.table:
        engines = [arguments.engine] if len(trees) > 2 else []
        print(markdown(seen, *engines, peer=of_peer if arguments.peer else None))
        return
    for cell, rounds in seen.items():
        print(f"{cell:16} {_told(rounds)}")


def _columns(other: Path, arguments: argparse.Namespace) -> list[tuple[Path, str]]:
    """What is measured side by side: working trees, and the engines of their agents."""
    if not arguments.table or arguments.engine == engine.DEFAULT:
        return [(other, arguments.engine), (ROOT, arguments.engine)]
    return [(other, engine.DEFAULT), (ROOT, engine.DEFAULT), (ROOT, arguments.engine)]


def _rounds(
    trees: Sequence[Tree], cells: Sequence[str], arguments: argparse.Namespace
) -> tuple[dict[str, list[tuple[Told, ...]]], dict[str, list[Told]]]:
    """What each round of each cell gave in every tree, and what the peer gave. Each tree is the
    first in its turn.
    """
    seen: dict[str, list[tuple[Told, ...]]] = {cell: [] for cell in cells}
    of_peer: dict[str, list[Told]] = {}
    peer = OtherProgram(arguments.peer) if arguments.peer else None
    for number in range(arguments.rounds):
        order = [(number + at) % len(trees) for at in range(len(trees))]
        for cell in cells:
            told = {at: trees[at].measure(cell, arguments.seconds) for at in order}
            seen[cell].append(tuple(told[at] for at in range(len(trees))))
        for one in peer.told() if peer is not None else ():
            of_peer.setdefault(one["cell"], []).append(one)
    return seen, of_peer


def _told(pairs: Sequence[tuple[Told, ...]]) -> str:
    """The ratios of the second to the first, for one cell."""
    return "  ".join(
        (
            _ratio("CPU", [_cpu(here) / _cpu(there) for there, here in pairs]),
            _ratio("agent", [_of(here, "agent") / _of(there, "agent") for there, here in pairs]),
            _ratio(
                "adapter", [_of(here, "adapter") / _of(there, "adapter") for there, here in pairs]
            ),
            _ratio("rate", [here["sps"] / there["sps"] for there, here in pairs]),
        )
    )


def _of(told: Told, process: str) -> float:
    return max(float(told["cpu_us"][process]), 0.1)


def _cpu(told: Told) -> float:
    return _of(told, "agent") + _of(told, "adapter")


def _ratio(name: str, ratios: list[float]) -> str:
    return f"{name} {statistics.median(ratios):.2f} [{min(ratios):.2f} to {max(ratios):.2f}]"


if __name__ == "__main__":
    main()
