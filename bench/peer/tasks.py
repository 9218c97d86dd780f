"""An application on asyncio that has the peer sign as fast as it is answered: aiohttp over the
proxy's Unix socket. Prints what `bench.load` prints.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import aiohttp
import uvloop

from bench.load import WARM_UP_SECONDS, Tally, told
from bench.peer.transit import INPUT, SIGN


async def run(arguments: argparse.Namespace) -> list[Tally]:
    connector = aiohttp.UnixConnector(arguments.socket, limit=arguments.tasks)
    async with aiohttp.ClientSession("http://proxy", connector=connector) as session:
        begin = time.perf_counter() + WARM_UP_SECONDS
        end = begin + arguments.seconds
        tallies = [Tally(begin, end, 1) for _ in range(arguments.tasks)]
        await asyncio.gather(*(_caller(session, tally) for tally in tallies))
    return tallies


async def _caller(session: aiohttp.ClientSession, tally: Tally) -> None:
    while tally.more():
        started, errors = time.perf_counter(), 0
        try:
            async with session.post(SIGN, json={"input": INPUT}) as answer:
                errors = int("signature" not in (await answer.json()).get("data", {}))
        except aiohttp.ClientError:
            errors = 1
        tally.count(started, errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--tasks", type=int, default=64)
    print(json.dumps(told(uvloop.run(run(parser.parse_args())), time.process_time())))


if __name__ == "__main__":
    main()
