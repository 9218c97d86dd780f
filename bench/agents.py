"""Many agents, each with one call at a time, as the adapters see them: a process that is all of
them. Reads what `capsign dev up -o json` printed, and prints one JSON object.

Each agent has a certificate, connections, streams, a handle and a journal of its own, and they run
the agent's code from the queue of calls to the adapter and back (`upstream`, `sign.outcomes`,
`journal`). What is left out is what an adapter does not see: the application's side, and a process
for each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import uvloop
from capsign_agent.config import Upstream
from capsign_agent.handles.held_handle import HeldHandle
from capsign_agent.handles.rate_limit import RateLimit
from capsign_agent.handles.scope import HandleScope
from capsign_agent.identity import credentials
from capsign_agent.journal import records
from capsign_agent.journal.journal import Journal
from capsign_agent.journal.reporter import Reporter
from capsign_agent.sign.outcomes import OutcomeRecorder
from capsign_agent.timing import USUAL
from capsign_agent.upstream.adapter_calls import AdapterCalls
from capsign_agent.upstream.call import Call
from capsign_agent.upstream.coalesce import Coalescer, on_the_loop
from capsign_agent.upstream.connection_generation import ConnectionGeneration
from capsign_agent.upstream.streams import Reachability, StreamSetup, streams_of
from capsign_agent.witness.told_leaves import ToldLeaves
from capsign_cli.dev.ca import DevelopmentCa, Identity
from capsign_wire.algorithms import BY_NAME
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import signing_pb2

from bench.load import MESSAGE, WARM_UP_SECONDS, Tally, told

WORKLOAD, GRANT, CALLER = "/ns/demo/sa/app", "orders-jwt", "app"
"""All are pods of the one Deployment that the policy of `dev up` knows."""

CALL_SECONDS = 10.0
JOURNAL_BYTES = 64 * 2**20


class BenchAgent:
    """One agent: its connections to all adapters, and what it holds."""

    def __init__(self, config: Upstream, identity: Identity, ca: bytes, journal: Path) -> None:
        metrics = Metrics()
        own = credentials.checked(
            ca, identity.certificate.read_bytes(), identity.private_key.read_bytes()
        )
        self._connections = ConnectionGeneration(config, own, metrics)
        self._calls = AdapterCalls(lambda: self._connections, CALL_SECONDS)
        self._journal = Journal(
            journal, JOURNAL_BYTES, secrets.token_bytes(16), time.time_ns() // 1_000_000, [CALLER]
        )
        self._journal.open(records.opened())
        self._reporter = Reporter(self._journal, self._calls, metrics, 0.5)
        self._coalescer = Coalescer(1024, 4 * 2**20, lambda: None, on_the_loop)
        setup = StreamSetup(
            self._coalescer,
            OutcomeRecorder(self._journal, metrics, lambda *_: None),
            ToldLeaves(USUAL.covered_after_s(60)),
            Reachability(time.monotonic()),
            metrics,
            exchange_s=CALL_SECONDS / 2,
            connect_s=CALL_SECONDS,
            timing=USUAL,
        )
        self._setup = setup
        self._streams = streams_of(self._connections.targets, setup)
        self._tasks: list[asyncio.Task[None]] = []
        self._scope: HandleScope | None = None

    async def start(self) -> None:
        """Fetch a handle and open the streams."""
        issued = (await self._calls.issue([GRANT])).handles[0]
        held = HeldHandle(CALLER, GRANT, RateLimit(0, 0, time.monotonic()))
        held.issued, held.token = issued, issued.token
        suffix = signing_pb2.ContextSuffix(protocol="jwt", role="issuer", protocol_version="1")
        number = BY_NAME["Ed25519"].number
        self._scope = HandleScope(held, number, suffix, suffix.SerializeToString())
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(stream.run()) for stream in self._streams]
        self._tasks.append(loop.create_task(self._reporter.run()))
        async with asyncio.timeout(CALL_SECONDS):
            while self._coalescer.idle_streams < len(self._streams):  # noqa: ASYNC110 # it has no event
                await asyncio.sleep(0.01)

    async def sign(self) -> bool:
        """One call; returns whether it was signed."""
        assert self._scope is not None
        answer = asyncio.get_running_loop().create_future()
        call = Call(self._scope, "", [new_intent_id()], [MESSAGE], answer)
        self._coalescer.submit(call)
        try:
            return bool((await answer).all_signed)
        except FailureError:
            return False

    async def close(self) -> None:
        """Tell the last records, and close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._journal.append(records.closed())
        await self._reporter.flush()
        self._journal.close()
        await self._connections.close()


class Spent:
    """CPU seconds of this process and of the adapters since it was made: without the handshakes,
    which are no part of a signature.
    """

    def __init__(self, adapters: Sequence[int]) -> None:
        self._adapters = [psutil.Process(pid) for pid in adapters]
        self._before = self._now()

    def _now(self) -> tuple[float, float]:
        times = [one.cpu_times() for one in self._adapters]
        return time.process_time(), sum(one.user + one.system for one in times)

    @property
    def seconds(self) -> tuple[float, float]:
        """Of this process, and of the adapters."""
        own, theirs = self._now()
        return own - self._before[0], theirs - self._before[1]


async def run(arguments: argparse.Namespace) -> dict[str, float]:
    """What the agents saw, and the CPU that it took."""
    about = json.loads(sys.stdin.read())
    directory = Path(about["dir"])
    ca = DevelopmentCa(directory / "pki", renew=False)
    config = Upstream(
        targets=tuple(one["address"] for one in about["adapters"]),
        server_name=about["server_name"],
        streams=arguments.streams,
    )
    life = secrets.token_hex(4)
    agents = [
        BenchAgent(
            config,
            ca.issue(f"bench-{number}", WORKLOAD),
            ca.certificate_file.read_bytes(),
            directory / "bench" / life / str(number),
        )
        for number in range(arguments.agents)
    ]
    await asyncio.gather(*(agent.start() for agent in agents))
    spent = Spent([one["pid"] for one in about["adapters"]])
    begin = time.perf_counter() + WARM_UP_SECONDS
    tallies = [Tally(begin, begin + arguments.seconds, 1) for _ in agents]

    async def caller(agent: BenchAgent, tally: Tally) -> None:
        while tally.more():
            before = time.perf_counter()
            tally.count(before, 0 if await agent.sign() else 1)

    await asyncio.gather(*(caller(*pair) for pair in zip(agents, tallies, strict=True)))
    own, theirs = spent.seconds
    await asyncio.gather(*(agent.close() for agent in agents))
    return {**told(tallies, own), "adapter_cpu_seconds": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket", help="of an application, which is not used")
    parser.add_argument("--agents", type=int, default=64)
    parser.add_argument("--streams", type=int, default=1, help="connections to each adapter")
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    print(json.dumps(uvloop.run(run(arguments))))


if __name__ == "__main__":
    main()
