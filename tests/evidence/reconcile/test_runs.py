"""A run of signatures that is read at once leaves what each of them would have, read alone."""

from __future__ import annotations

import random

import msgspec
import pytest
from capsign_evidence.leaf_fields import LeafError
from capsign_evidence.reconcile.leaves import intents_of, run_of
from capsign_evidence.reconcile.reconciler import Reconciler
from capsign_evidence.reconcile.state import Bounds
from capsign_evidence.reconcile.timing import Timing
from support.two_streams import HOUR, MINUTE, OTHER, WORKLOAD, Agent, Log, numbered


def a_log(seed: int) -> Log:
    """Signatures of three agents in bunches, some never reported, some reported before their leaf,
    some named wrongly, some by a clock that is behind.
    """
    chance, log = random.Random(seed), Log()
    agents = [Agent(log, 1), Agent(log, 2), Agent(log, 3, OTHER)]
    for _ in range(60):
        agent = chance.choice(agents)
        intents = [
            agent.sign(answered=chance.random() < 0.9) for _ in range(chance.choice([1, 2, 40]))
        ]
        match chance.randrange(9):
            case 0:
                agent.done(intents[0], chance.randrange(len(log.entries)))
            case 1:
                log.sign(agent.workload, agent.key, log.intent())
            case 2:
                log.sign(agent.workload, agent.key, intents[0])
            case 3:
                early = log.intent()
                agent.asked(early)
                agent.deliver()
                log.sign(agent.workload, agent.key, early)
            case 4:
                agent.crash()
            case 5:
                log.entries.append(log.entries[-1][:50])
        log.now_ms += chance.choice([0, 0, 1, 900, 6 * MINUTE, 2 * HOUR, -5 * MINUTE])
        if chance.random() < 0.6:
            agent.deliver()
    return log


def by_runs(reconciler: Reconciler, log: Log) -> None:
    while (at := reconciler.state.position) < len(log.entries):
        count = run_of(log.entries, at)
        try:
            if count > 1:
                reconciler.run(log.entries[at : at + count])
            else:
                reconciler.entry(log.entries[at], log.batches.get(at))
        except LeafError:
            continue


def one_by_one(reconciler: Reconciler, log: Log) -> None:
    for at, entry in enumerate(log.entries):
        try:
            reconciler.entry(entry, log.batches.get(at))
        except LeafError:
            continue


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bounds", [Bounds(), Bounds(open=30, missing=4)])
def test_by_runs_it_comes_to_the_same_as_one_by_one(seed: int, bounds: Bounds) -> None:
    log = a_log(seed)
    both = [Reconciler(Timing(), log.entries.__getitem__, bounds=bounds) for _ in range(2)]
    by_runs(both[0], log)
    one_by_one(both[1], log)
    for step in range(30):
        for one in both:
            one.advance(log.now_ms + step * HOUR)
    first, second = (msgspec.msgpack.encode(one.state) for one in both)
    assert first == second
    assert [one.standing for one in both[:1]] == [one.standing for one in both[1:]]
    assert both[0].take_changes() == both[1].take_changes()


def test_a_run_ends_where_anything_but_ids_and_hashes_differs() -> None:
    log = Log()
    for number in range(3):
        log.sign(WORKLOAD, numbered(1, 32), numbered(number))
    log.sign(WORKLOAD, numbered(2, 32), numbered(3))
    log.now_ms += 1
    log.sign(WORKLOAD, numbered(2, 32), numbered(4))
    log.sign(OTHER, numbered(2, 32), numbered(5))
    log.entries.append(log.entries[-1] + b"x")
    log.entries.append(b"")
    assert [run_of(log.entries, at) for at in range(8)] == [3, 2, 1, 1, 1, 1, 1, 0]
    assert intents_of(log.entries[:3]) == [numbered(0), numbered(1), numbered(2)]
