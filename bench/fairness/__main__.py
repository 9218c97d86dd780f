"""`python -m bench.fairness [attack …]`: the victim's rate beside each attack, divided by its rate
beside a process that merely burns the same CPU. 0.7 is the least that is good; at 1.0 the attack
costs the victim no more than any busy neighbour would.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from bench.fairness.attacks import ATTACKS
from bench.fairness.house import House
from bench.fairness.measure import Fairness, measure

GOOD = 0.7


def main() -> None:
    arguments = _parser().parse_args()
    found: list[Fairness] = []
    with tempfile.TemporaryDirectory(prefix="capsign-fair-") as scratch:
        house = House(Path(scratch))
        try:
            for name in arguments.attacks or ATTACKS:
                fairness = measure(ATTACKS[name], house, arguments.seconds, arguments.rounds)
                found.append(fairness)
                print(
                    json.dumps(fairness.plain()) if arguments.json else fairness.line(), flush=True
                )
        finally:
            house.close()
    if arguments.demand and any(one.ratio < GOOD for one in found):
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(ATTACKS)
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__)
    parser.add_argument(
        "attacks",
        nargs="*",
        choices=[*ATTACKS, []],
        metavar="attack",
        help=f"of: {names}; all by default",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=2.0,
        help="seconds of each of the three measurements of a round",
    )
    parser.add_argument("--rounds", type=int, default=1, help="rounds; the median ratio counts")
    parser.add_argument("--json", action="store_true", help="a JSON object a line for each attack")
    parser.add_argument(
        "--demand", action="store_true", help=f"end with 1 if a ratio is below {GOOD}"
    )
    return parser


if __name__ == "__main__":
    main()
