"""Measures cells on demand in a deployment that stays up: reads lines `cell seconds`, prints a line
of JSON for each.

`bench.against` runs this text in another working tree too, so it uses what every commit's `bench`
has.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from bench.cells import CELLS
from bench.deployment import Deployment
from bench.primitives import ed25519_per_second

PRIMITIVE_SECONDS = 0.2


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="capsign-bench-") as scratch:
        deployment = Deployment(Path(scratch), 2)
        try:
            print(json.dumps({"socket": deployment.socket}), flush=True)
            for line in sys.stdin:
                name, seconds = line.split()
                before = ed25519_per_second(PRIMITIVE_SECONDS)
                result = CELLS[name].run(deployment, float(seconds))
                after = ed25519_per_second(PRIMITIVE_SECONDS)
                print(json.dumps(result.against((before + after) / 2).plain()), flush=True)
        finally:
            deployment.close()


if __name__ == "__main__":
    main()
