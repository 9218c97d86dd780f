"""`python -m bench.profile`: draws where the time of one call, and of one batch of 100, goes.

It starts a deployment whose processes note on the monotonic clock when some functions begin and end
(`hook/sitecustomize.py`), signs one call at a time, takes the quickest
tenth of the calls, which other work disturbed least, and writes docs/pictures/one-call.svg and
docs/pictures/batch-of-100.svg. A mark takes about a microsecond.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import capsign

from bench.deployment import Deployment
from bench.load import MESSAGE
from bench.primitives import ed25519_per_second
from bench.profile.svg import picture
from bench.profile.timeline import STEPS, medians_us

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
HOOK = Path(__file__).parent / "hook"

Mark = tuple[int, str]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument(
        "--calls", type=int, default=1000, help="calls, and a tenth as many batches"
    )
    parser.add_argument("--out", type=Path, default=PICTURES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, title, batch, calls in (
        ("one-call", "One call, alone", 1, arguments.calls),
        ("batch-of-100", "A batch of 100 signatures, alone", 100, max(arguments.calls // 10, 10)),
    ):
        marks, unit_us = _signed(batch, calls)
        took = medians_us(marks)
        a_signature = f"{sum(took) / unit_us / batch:,.1f} E a signature"
        note = f"= {a_signature}; the quickest tenth of {calls} calls"
        (arguments.out / f"{name}.svg").write_text(picture(title, note, STEPS, took))
        print(f"{name}: {sum(took):,.0f} µs")
        for step, us in zip(STEPS, took, strict=True):
            print(f"  {us:8,.0f} µs  {step.where:8} {step.what}")


def _signed(batch: int, calls: int) -> tuple[list[Mark], float]:
    """The marks of all processes while so many calls were made, and microseconds of 1 E."""
    with tempfile.TemporaryDirectory(prefix="capsign-profile-") as scratch:
        os.environ["BENCH_MARKS"] = scratch
        os.environ["PYTHONPATH"] = str(HOOK)
        deployment = Deployment(Path(scratch), 2)
        try:
            with deployment.apart():
                unit_us = 1e6 / ed25519_per_second(0.5)
                marks = _client(deployment.socket, batch, calls)
        finally:
            deployment.close()
            del os.environ["BENCH_MARKS"], os.environ["PYTHONPATH"]
        for file in Path(scratch).glob("*.marks"):
            for line in file.read_text().splitlines():
                at, name = line.split()
                marks.append((int(at), name))
    return marks, unit_us


def _client(socket: str, batch: int, calls: int) -> list[Mark]:
    wish: dict[str, Any] = {"purpose": "jwt", "protocol": "jwt", "algorithm": "Ed25519"}
    marks: list[Mark] = []
    with capsign.Signer(socket) as signer:
        act: Callable[[], object] = partial(signer.sign, MESSAGE, **wish)
        if batch > 1:
            act = partial(signer.sign_many, [MESSAGE] * batch, **wish)
        for number in range(calls + calls // 10):
            begin = time.monotonic_ns()
            act()
            if number >= calls // 10:  # the first tenth warms up
                marks += [(begin, "client.begin"), (time.monotonic_ns(), "client.end")]
    return marks


if __name__ == "__main__":
    main()
