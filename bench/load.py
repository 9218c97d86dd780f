"""The application: a process of its own that signs as fast as it is answered. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import capsign

MESSAGE = b"x" * 100
WARM_UP_SECONDS = 0.5


@dataclass
class Tally:
    """What one caller saw. Times count from the end of the warm-up."""

    begin: float
    end: float
    batch: int
    latencies: list[float] = field(default_factory=list)
    signatures: int = 0
    all_signatures: int = 0
    errors: int = 0

    def more(self) -> bool:
        return time.perf_counter() < self.end

    def count(self, started: float, errors: int) -> None:
        now = time.perf_counter()
        self.all_signatures += self.batch - errors
        if started >= self.begin and now <= self.end:
            self.latencies.append(now - started)
            self.signatures += self.batch - errors
            self.errors += errors


def run_threads(arguments: argparse.Namespace) -> list[Tally]:
    wish = {"purpose": arguments.purpose, "protocol": "jwt", "algorithm": arguments.algorithm}
    with capsign.Signer(arguments.socket, coalesce=arguments.coalesce) as signer:
        signer.sign(MESSAGE, **wish)
        tallies = _tallies(arguments, arguments.threads)

        def caller(tally: Tally) -> None:
            messages = [MESSAGE] * tally.batch
            while tally.more():
                started, errors = time.perf_counter(), 0
                try:
                    if tally.batch == 1:
                        signer.sign(MESSAGE, **wish)
                    else:
                        results = signer.sign_many(messages, **wish)
                        errors = sum(isinstance(result, capsign.CapsignError) for result in results)
                except capsign.CapsignError:
                    errors = tally.batch
                tally.count(started, errors)

        threads = [threading.Thread(target=caller, args=(tally,)) for tally in tallies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return tallies


async def run_tasks(arguments: argparse.Namespace) -> list[Tally]:
    wish = {"purpose": arguments.purpose, "protocol": "jwt", "algorithm": arguments.algorithm}
    async with capsign.AsyncSigner(arguments.socket, coalesce=arguments.coalesce) as signer:
        await signer.sign(MESSAGE, **wish)
        tallies = _tallies(arguments, arguments.tasks)

        async def caller(tally: Tally) -> None:
            while tally.more():
                started, errors = time.perf_counter(), 0
                try:
                    await signer.sign(MESSAGE, **wish)
                except capsign.CapsignError:
                    errors = 1
                tally.count(started, errors)

        await asyncio.gather(*(caller(tally) for tally in tallies))
    return tallies


def _tallies(arguments: argparse.Namespace, callers: int) -> list[Tally]:
    begin = time.perf_counter() + WARM_UP_SECONDS
    return [Tally(begin, begin + arguments.seconds, arguments.batch) for _ in range(callers)]


def told(tallies: Sequence[Tally], cpu_seconds: float) -> dict[str, float]:
    """What the benchmark reads of a load."""
    latencies = sorted(latency for tally in tallies for latency in tally.latencies)
    if not latencies:
        raise SystemExit("no call was answered within the time of the cell")
    seconds = tallies[0].end - tallies[0].begin
    return {
        "sps": sum(tally.signatures for tally in tallies) / seconds,
        "p50_us": latencies[len(latencies) // 2] * 1e6,
        "p99_us": latencies[min(int(len(latencies) * 0.99), len(latencies) - 1)] * 1e6,
        "errors": sum(tally.errors for tally in tallies),
        "all_signatures": sum(tally.all_signatures for tally in tallies),
        "cpu_seconds": cpu_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--algorithm", default="Ed25519")
    parser.add_argument("--purpose", default="jwt")
    parser.add_argument("--no-coalesce", dest="coalesce", action="store_false")
    arguments = parser.parse_args()
    if arguments.tasks:
        import uvloop

        tallies = uvloop.run(run_tasks(arguments))
    else:
        tallies = run_threads(arguments)
    print(json.dumps(told(tallies, time.process_time())))


if __name__ == "__main__":
    main()
