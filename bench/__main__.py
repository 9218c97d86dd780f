"""`python -m bench [cell …]`: measures a real deployment and prints ratios to the raw primitive."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from bench.cells import CELLS, Cell, Result
from bench.deployment import Deployment
from bench.primitives import ed25519_per_second
from bench.report import print_table


def main() -> None:
    arguments = _parser().parse_args()
    chosen = [CELLS[name] for name in arguments.cells or CELLS]
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="capsign-bench-") as scratch:
        deployment = Deployment(Path(scratch), arguments.workers)
        try:
            for cell in chosen:
                result = _measure(cell, deployment, arguments.seconds)
                results.append(result)
                if arguments.json:
                    print(json.dumps(result.plain()), flush=True)
                else:
                    print(f"  {cell.name} …", file=sys.stderr, flush=True)
        finally:
            deployment.close()
    if not arguments.json:
        print_table(results)


def _measure(cell: Cell, deployment: Deployment, seconds: float) -> Result:
    # The primitive is measured on both sides of the cell: the machine may change its pace between
    # them.
    before = ed25519_per_second(seconds / 4)
    result = cell.run(deployment, seconds)
    after = ed25519_per_second(seconds / 4)
    return result.against((before + after) / 2)


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
    parser.add_argument("--json", action="store_true", help="a JSON object a line for each cell")
    return parser


if __name__ == "__main__":
    main()
