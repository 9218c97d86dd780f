"""What one record tells of many calls is what a record for each would tell: to reconciliation, to
summaries, to whoever reads or exports events, and to a rollout. That holds for lies, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import pytest
from capsign_adapter.decide.rollout_cohort import is_in
from capsign_adapter.decide.rollout_samples import count
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.model.rollouts import CanaryStep, Figures, RolloutRow
from capsign_cli.audit.export_ocsf import uid_of
from capsign_evidence import told_calls
from capsign_evidence.archive.batch_chain import BatchChain
from capsign_evidence.archive.events import Event
from capsign_evidence.archive.record_events import of_batch
from capsign_evidence.archive.summary import Summary, summarise
from capsign_evidence.leaf_reader import AgentBatch, decode
from capsign_evidence.reconcile.reconciler import Reconciler
from capsign_evidence.reconcile.timing import Timing
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import failures_pb2
from hypothesis import example, given
from hypothesis import strategies as st
from support.rollouts import PLAN, rollout
from support.two_streams import HOUR, NOW, WORKLOAD, Agent, Log, numbered

SIGNED = 12
"""Signatures in the log, leaves 0 to 11."""
TWICE = 3
"""This one has another, under another certificate."""


@dataclass(frozen=True)
class Said:
    """What an agent says at once: of these calls, by their numbers, and of the first one's leaf."""

    kind: int
    calls: Sequence[int]
    outcome: int = 0
    reason: int = 0
    named: int = 0
    elapsed_ms: int = 0

    def records(self) -> Iterator[pb.AuditRecord]:
        """A record for each call."""
        done = self.kind == pb.AUDIT_KIND_OUTCOME and self.outcome == failures_pb2.OUTCOME_DONE
        for place, call in enumerate(self.calls):
            yield pb.AuditRecord(
                kind=self.kind,
                outcome=self.outcome,
                reason=self.reason,
                grant="orders",
                intent_id=numbered(call),
                leaf_index_plus_one=self.named + (place if done and self.named else 0),
                elapsed_ms=self.elapsed_ms,
            )

    def record(self) -> pb.AuditRecord:
        """One for all."""
        first = next(self.records())
        first.more_intents = b"".join(map(numbered, self.calls[1:]))
        return first


# intents of signatures are 1 to SIGNED; those above were never signed
CALLS = st.integers(1, SIGNED + 2)
RUNS = st.tuples(st.integers(1, SIGNED), st.integers(1, SIGNED)).map(
    lambda ends: list(range(min(ends), max(ends) + 1))
)
MANY = st.one_of(RUNS, st.lists(CALLS, min_size=1, max_size=6))
ELAPSED = st.sampled_from([0, 3, 70_000])
SAID = st.one_of(
    st.builds(Said, st.just(int(pb.AUDIT_KIND_INTENT)), MANY),
    RUNS.map(lambda run: Said(pb.AUDIT_KIND_OUTCOME, run, 1, named=run[0], elapsed_ms=3)),
    st.builds(
        Said,
        st.just(int(pb.AUDIT_KIND_OUTCOME)),
        MANY,
        st.sampled_from([1, 2, 3]),
        st.sampled_from([0, int(failures_pb2.REASON_ANSWER_LOST)]),
        st.integers(0, SIGNED + 2),
        ELAPSED,
    ),
)


def told(sayings: Sequence[tuple[Said, bool]], *, together: bool) -> Log:
    """The log of an agent that says this; True: a batch ends there."""
    log = Log()
    agent = Agent(log, 1)
    for _ in range(SIGNED):
        log.sign(WORKLOAD, agent.key, log.intent())
    log.sign(WORKLOAD, bytes(32), numbered(TWICE))
    for said, ends in sayings:
        for record in [said.record()] if together else said.records():
            agent.write(record)
        log.now_ms += 1000
        if ends:
            agent.deliver()
    agent.deliver()
    return log


@example([(Said(pb.AUDIT_KIND_INTENT, [1, 1]), True)])
@example([(Said(pb.AUDIT_KIND_INTENT, [1, 2, TWICE]), True)])
@example([(Said(pb.AUDIT_KIND_OUTCOME, [1, 1], 1, named=1), True)])
@given(sayings=st.lists(st.tuples(SAID, st.booleans()), min_size=1, max_size=6))
def test_to_every_reader_it_is_the_same(sayings: list[tuple[Said, bool]]) -> None:
    one, each = (told(sayings, together=together) for together in (True, False))
    assert reconciled(one) == reconciled(each)
    assert [[*events(one)], figures(one)] == [[*events(each)], figures(each)]
    assert summary(one) == summary(each)


def reconciled(log: Log) -> tuple[object, ...]:
    """Incidents without the numbers of records, and what is open of each workload."""
    reconciler = Reconciler(Timing(), log.entries.__getitem__)
    for at, entry in enumerate(log.entries):
        reconciler.entry(entry, log.batches.get(at))
    open_before = msgspec.to_builtins(reconciler.state.workloads, builtin_types=(bytes,))
    horizons = [life.horizon for life in reconciler.state.lives.values()]
    for step in range(30):
        reconciler.advance(log.now_ms + step * HOUR)
    reconciler.conclude()
    standing = [replace(one, first=0, last=0) for one in reconciler.standing]
    return open_before, horizons, standing


def summary(log: Log) -> Summary:
    return summarise(0, log.entries, [(at, WORKLOAD, data) for at, data in log.batches.items()])


def events(log: Log) -> Iterator[Event]:
    for index, data in log.batches.items():
        for event in of_batch(index, WORKLOAD, data):
            yield replace(event, sequence=0, place=0)


def rolling() -> RolloutRow:
    """A rollout of which the workload is in the canary."""
    for number in range(100):
        row = rollout(
            RolloutStage.CANARY,
            plan=replace(PLAN, canary=(CanaryStep(50, 60_000),)),
            figures=Figures(0, 0),
            id=number.to_bytes(16, "big"),
            stage_since_ms=NOW,
        )
        if is_in(row, WORKLOAD):
            return row
    raise AssertionError("in none of them")


ROW = rolling()


def figures(log: Log) -> Figures:
    batches = {index: (WORKLOAD, data) for index, data in log.batches.items()}
    return count(ROW, {"orders"}, log.entries, batches)


def test_a_rollout_weighs_each_call() -> None:
    lost = int(failures_pb2.REASON_ANSWER_LOST)
    said = [
        (Said(pb.AUDIT_KIND_OUTCOME, range(1, 7), 1, named=1, elapsed_ms=70_000), False),
        (Said(pb.AUDIT_KIND_OUTCOME, range(7, 13), 3, reason=lost), True),
    ]
    after = figures(told(said, together=True)).after
    assert sum(after.latencies) == 6
    [reports] = after.reporters.values()
    assert (reports.unanswered, reports.timed, reports.slow) == (6, 6, 6)


def test_each_call_has_an_id_of_its_own_where_events_are_exported() -> None:
    log = told([(Said(pb.AUDIT_KIND_INTENT, [1, 2, 2]), True)], together=True)
    [(index, data)] = log.batches.items()
    calls = [one for one in of_batch(index, WORKLOAD, data) if one.what == "intent"]
    ids = [uid_of("log", one) for one in calls]
    assert ids == [f"log/{index}/3", f"log/{index}/3.1", f"log/{index}/3.2"]
    assert [one.intent_id for one in calls] == [numbered(1), numbered(2), numbered(2)]


DAMAGED = {
    "a part of an id": {"more_intents": b"x" * 17},
    "no first": {"intent_id": b""},
    "of another kind": {"kind": pb.AUDIT_KIND_HANDLES},
    "beyond all leaves": {"leaf_index_plus_one": 2**63 - 1},
}


@pytest.mark.parametrize("fields", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_cannot_be_read_is_a_damaged_batch(fields: dict[str, object]) -> None:
    good = Said(pb.AUDIT_KIND_OUTCOME, [1, 2], 1, named=1, elapsed_ms=5).record()
    log = Log()
    agent = Agent(log, 1)
    for name, value in fields.items():
        setattr(good, name, value)
    agent.write(good)
    agent.deliver()
    [(index, data)] = log.batches.items()
    assert [one.what for one in of_batch(index, WORKLOAD, data)] == ["unreadable"]
    assert summarise(0, log.entries, [(index, WORKLOAD, data)]).unreadable
    entry = decode(log.entries[index])
    assert isinstance(entry, AgentBatch)
    faults = [one.kind for one in BatchChain().take(index, entry, (index, WORKLOAD, data))]
    assert faults == ["batch-unreadable"]
    reconciler = Reconciler(Timing(), log.entries.__getitem__)
    reconciler.entry(log.entries[0], data)
    assert [one.kind.name for one in reconciler.standing] == ["FORGED_CHAIN"]
    assert figures(log).after == ROW.figures.after


def test_calls_are_counted() -> None:
    many = Said(pb.AUDIT_KIND_INTENT, range(1, 1025)).record()
    assert len(many.more_intents) == 1023 * 16
    assert told_calls.count([many, pb.AuditRecord(kind=pb.AUDIT_KIND_OPEN)]) == 1025
    assert told_calls.sound([many])
