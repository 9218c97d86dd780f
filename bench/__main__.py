"""`python -m bench [cell …]`: measures a real deployment and prints ratios to the raw primitive."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench import engine
from bench.cells import CELLS, Cell, Result
from bench.deployment import Deployment
from bench.go_client import GoMissingError
from bench.other_program import OtherProgram
from bench.report import print_rounds, print_table
from bench.rounds import primitive


def main() -> None:
    arguments = _parser().parse_args()
    engine.demand(arguments.engine)
    chosen = list(_possible(CELLS[name] for name in arguments.cells or CELLS))
    other = OtherProgram(arguments.against) if arguments.against else None
    results: list[Result] = []
    others: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="capsign-bench-") as scratch:
        deployment = Deployment(Path(scratch), arguments.workers)
        try:
            if arguments.engine != engine.DEFAULT:
                deployment.restart_with(engine.settings(arguments.engine))
            for number in range(arguments.rounds):
                for cell in chosen:
                    result = _measure(cell, deployment, arguments.seconds)
                    results.append(result)
                    _tell(result, number, as_json=arguments.json)
                if other is not None:
                    others.extend(other.round())
        finally:
            deployment.close()
    if arguments.json:
        return
    if arguments.rounds > 1 or other is not None:
        print_rounds(results, others)
    else:
        print_table(results)


def _tell(result: Result, number: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.plain()), flush=True)
    else:
        print(f"  {result.cell}, round {number + 1}", file=sys.stderr, flush=True)


def _possible(chosen: Iterable[Cell]) -> Iterator[Cell]:
    """The cells that can be run here; the others are named."""
    for cell in chosen:
        try:
            cell.needs()
        except GoMissingError as missing:
            print(f"  {cell.name}: left out, {missing}", file=sys.stderr, flush=True)
        else:
            yield cell


def _measure(cell: Cell, deployment: Deployment, seconds: float) -> Result:
    # The primitive is measured on both sides of the cell: the machine may change its pace between
    # them.
    before, cpu_before = primitive(seconds / 4)
    result = cell.run(deployment, seconds)
    after, cpu_after = primitive(seconds / 4)
    return result.against((before + after) / 2, (cpu_before + cpu_after) / 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "cells",
        nargs="*",
        choices=[*CELLS, []],
        metavar="cell",
        help=f"of: {', '.join(CELLS)}; all by default",
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds a cell")
    parser.add_argument("--workers", type=int, default=2, help="adapter replicas")
    parser.add_argument(
        "--engine",
        choices=engine.ENGINES,
        default=engine.DEFAULT,
        help="what serves the applications' sockets",
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line for each cell")
    parser.add_argument("--rounds", type=int, default=1, help="how often; medians are printed")
    parser.add_argument(
        "--against",
        metavar="CMD",
        help="run this after each round; it prints the same lines of JSON, and is set beside ours",
    )
    return parser


if __name__ == "__main__":
    main()
