"""Overload and death, one after the other under load: the store a hundred times slower, the sink
hung, the journal's disk full, a partition in one direction, kill -9 of either side and of both.

At the end the signatures that applications hold, the leaves of the log and the agent's records are
the same set, counted from the log and the audit batches alone. `make test-long` plays ten times as
many.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

import capsign
import pytest
from capsign_evidence import told_calls
from capsign_evidence.archive import open_archive
from capsign_evidence.leaf_reader import Signed, decode
from capsign_wire import sqlite_url
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2
from support.black_hole import BlackHole
from support.dev import Dev

SIGNATURES = int(os.environ.get("CAPSIGN_OVERLOAD_SIGNATURES", "10000"))
AT_ONCE = 250
THREADS = 4
PATIENCE_S = 90.0 + SIGNATURES / 500


class Load:
    """Applications that sign what they are given and ask for each until they have it. An intent
    stays that of its message, whatever happens.
    """

    def __init__(self, path: str, pool: ThreadPoolExecutor) -> None:
        self._path = path
        self._waiting: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self.given = 0
        self.released: dict[bytes, bytes] = {}
        """Signatures by intent."""
        self.seen = Counter[str]()
        """Why calls failed on the way."""
        self._running = [pool.submit(self._work) for _ in range(THREADS)]

    def give(self, count: int) -> None:
        """So many more messages to sign."""
        self.given += count
        for at in range(0, count, AT_ONCE):
            self._waiting.put([new_intent_id() for _ in range(min(AT_ONCE, count - at))])

    def end(self) -> None:
        for _ in self._running:
            self._waiting.put(None)
        for one in self._running:
            one.result(PATIENCE_S)

    def _work(self) -> None:
        with capsign.Signer(self._path) as signer:
            while (intents := self._waiting.get()) is not None:
                while intents:
                    intents = self._ask(signer, intents)

    def _ask(self, signer: capsign.Signer, intents: list[bytes]) -> list[bytes]:
        """Asks once; returns the intents that are still open."""
        try:
            results = signer.sign_many(
                intents, intent_ids=intents, timeout=5.0, purpose="jwt", protocol="jwt",
                algorithm="ES256",
            )  # fmt: skip
        except capsign.CapsignError as error:
            self.seen[error.reason] += 1
            return intents
        for intent, result in zip(intents, results, strict=True):
            if isinstance(result, capsign.Signature):
                assert self.released.setdefault(intent, result.value) == result.value
            else:
                assert not isinstance(result, capsign.Refused), result
                self.seen[result.reason] += 1
        return [intent for intent in intents if intent not in self.released]

    def until(self, done: Callable[[], object]) -> None:
        """Wait, as long as the load runs without a failure of its own."""
        end = time.monotonic() + PATIENCE_S
        while not done():
            for one in self._running:
                if one.done():
                    one.result()
            assert time.monotonic() < end, dict(self.seen)
            time.sleep(0.01)

    def begun(self, count: int) -> None:
        """Give so many, and wait until a part of them is done, so that more are under way."""
        before = len(self.released)
        self.give(count)
        self.until(lambda: len(self.released) > before)

    def done(self) -> None:
        """Wait until everything that was given is signed."""
        self.until(lambda: len(self.released) == self.given)


@contextmanager
def hung_sink() -> Iterator[str]:
    """A collector that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class House:
    """The deployment, whose processes are killed and started again."""

    def __init__(self, dev: Dev, sink: str, slow: Path) -> None:
        self.dev, self.slow = dev, slow
        self._told = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink, "OTEL_METRIC_EXPORT_INTERVAL": "1000"}
        dev.end(dev.agent)
        dev.end(dev.adapter())
        about = dev.about["adapters"][0]
        self.proxy = BlackHole(about["address"])
        config = Path(dev.about["agent"]["config"])
        config.write_text(config.read_text().replace(about["address"], self.proxy.address))
        self.adapter, self.agent = self.start_adapter(), self.start_agent()

    def start_adapter(self) -> subprocess.Popen:
        module, told = "support.slow_store_adapter", self._told
        self.adapter = self.dev.start_adapter(
            module=module, CAPSIGN_TEST_SLOW=str(self.slow), **told
        )
        self.dev.wait_serving(self.dev.about["adapters"][0]["health"], PATIENCE_S)
        return self.adapter

    def start_agent(self) -> subprocess.Popen:
        self.agent = self.dev.start_agent(CAPSIGN_AGENT_UPSTREAM_TIMEOUT_MS="4000", **self._told)
        return self.agent

    def kill(self, *processes: subprocess.Popen) -> None:
        for one in processes:
            one.kill()
        for one in processes:
            one.wait(30)


@pytest.fixture
def house(short_dir):
    if os.geteuid():
        pytest.fail("A small disk is mounted for this test: run it as root.", pytrace=False)
    journal = short_dir / "d" / "state" / "journal"
    journal.mkdir(mode=0o700, parents=True)
    for one in (short_dir / "d", short_dir / "d" / "state"):
        one.chmod(0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "none", str(journal)]
    with ExitStack() as kept:
        subprocess.run(mount, check=True)
        kept.callback(subprocess.run, ["umount", "-l", str(journal)], check=True)
        dev = Dev(short_dir / "d")
        kept.callback(dev.close)
        made = House(dev, kept.enter_context(hung_sink()), short_dir / "slow")
        kept.callback(made.proxy.close)
        yield made


def fill(disk: Path) -> None:
    with (disk / "ballast").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def store_slow(house: House, load: Load, count: int) -> None:
    house.slow.touch()
    load.give(count)
    load.done()
    house.slow.unlink()


def adapter_killed(house: House, load: Load, count: int) -> None:
    load.begun(count)
    house.kill(house.adapter)
    house.start_adapter()
    load.done()


def disk_full(house: House, load: Load, count: int) -> None:
    journal = house.dev.directory / "state" / "journal"
    fill(journal)
    load.give(count)
    # what is delivered meanwhile makes room
    load.until(lambda: fill(journal) or load.seen["JOURNAL_FULL"])
    (journal / "ballast").unlink()
    load.done()


def answers_swallowed(house: House, load: Load, count: int) -> None:
    before = load.seen.copy()
    load.begun(count)
    house.proxy.swallow_answers()
    load.until(lambda: {"ANSWER_LOST", "ANSWER_LATE"} & (load.seen - before).keys())
    house.proxy.heal()
    load.done()


def agent_killed(house: House, load: Load, count: int) -> None:
    load.begun(count)
    house.kill(house.agent)
    house.start_agent()
    load.done()


def both_killed(house: House, load: Load, count: int) -> None:
    load.begun(count)
    house.kill(house.agent, house.adapter)
    house.start_adapter()
    house.start_agent()
    load.done()


SCENES = (
    store_slow,
    adapter_killed,
    disk_full,
    answers_swallowed,
    agent_killed,
    both_killed,
)


@pytest.mark.timeout(900 + SIGNATURES / 50)
def test_released_signatures_leaves_and_records_are_the_same_set(house):
    with ThreadPoolExecutor(THREADS) as pool:
        load = Load(house.dev.socket(), pool)
        try:
            for number, scene in enumerate(SCENES, 1):
                scene(house, load, SIGNATURES * number // len(SCENES) - load.given)
        finally:
            load.end()
    house.agent.terminate()
    assert house.agent.wait(60) == 0

    store = sqlite_url.path_of(house.dev.about["store"])
    archive = open_archive(store)
    leaves: dict[bytes, list[int]] = {}
    for index, entry in enumerate(archive.entries(0, archive.size)):
        decoded = decode(entry)
        if isinstance(decoded, Signed):
            leaves.setdefault(decoded.intent_id, []).append(index)
    reported: dict[bytes, set[int]] = {}
    for _, _, batch in archive.batches(0):
        for record in evidence_pb2.AuditBatch.FromString(batch).records:
            if record.outcome == failures_pb2.OUTCOME_DONE:
                for intent_id, named in told_calls.each(record):
                    reported.setdefault(intent_id, set()).add(named - 1)
    assert len(load.released) == SIGNATURES
    assert leaves.keys() == load.released.keys()
    assert {intent: {index} for intent, [index] in leaves.items()} == reported
