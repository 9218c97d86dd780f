"""Each dishonesty has its own incident, and what only looks like one has none."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from capsign_evidence import leaf
from capsign_evidence.drift_leaf import Drifted, DriftKind
from capsign_evidence.incident_leaf import IncidentKind as Kind
from capsign_evidence.incident_leaf import IncidentState
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.reconcile.incidents import (
    FORGOTTEN,
    MAX_STANDING,
    MAX_UNTOLD,
    Incident,
    IncidentKey,
    Standing,
)
from capsign_evidence.reconcile.reconciler import Reconciler
from capsign_evidence.reconcile.state import MAX_LIVES, MAX_LIVES_OF_KEY, Bounds, State
from capsign_evidence.reconcile.timing import MAX_STEP_MS, Timing
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from support.two_streams import HOUR, MINUTE, OTHER, POLICY, SECOND, WORKLOAD, Agent, Log, numbered

TIMING = Timing()


def found(log: Log, *, until_ms: int = 0) -> list[Kind]:
    """What stands after the log, read as far as it goes or until a time."""
    return [one.kind for one in read(log, until_ms=until_ms).standing]


def read(log: Log, *, until_ms: int = 0) -> Reconciler:
    reconciler = Reconciler(TIMING, lambda index: log.entries[index])
    for index, entry in enumerate(log.entries):
        reconciler.entry(entry, log.batches.get(index))
    wait(reconciler, until_ms or log.now_ms)
    return reconciler


def wait(reconciler: Reconciler, until_ms: int) -> None:
    """As a replica does that runs all the while."""
    for now_ms in range(reconciler.state.wall_ms or until_ms, until_ms, MAX_STEP_MS):
        reconciler.advance(now_ms)
    reconciler.advance(until_ms)


@pytest.fixture
def log() -> Log:
    return Log()


def test_an_agent_that_tells_everything(log: Log) -> None:
    agent = Agent(log, 1)
    agent.sign()
    agent.deliver()
    agent.sign(answered=False)
    agent.end()
    assert found(log, until_ms=log.now_ms + 48 * HOUR) == []


def test_a_signature_that_the_agent_leaves_out_is_named_once_it_tells_of_a_later_one(
    log: Log,
) -> None:
    agent = Agent(log, 1)
    log.sign(WORKLOAD, agent.key, log.intent())
    agent.sign()
    agent.deliver()
    log.now_ms += TIMING.report_ms
    assert found(log) == [Kind.SIGNED_NOT_REPORTED]


def test_a_thief_is_named_when_the_victim_has_nothing_to_tell(log: Log) -> None:
    """The victim signs nothing. That it lives, and which leaf it knows, is all that it says."""
    agent = Agent(log, 1)
    agent.deliver()
    log.sign(WORKLOAD, agent.key, log.intent())
    log.sign(WORKLOAD, agent.key, log.intent())
    log.now_ms += TIMING.report_ms
    assert found(log) == [Kind.LATE]
    agent.speak()
    agent.deliver()
    log.now_ms += SECOND
    assert found(log) == [Kind.LATE]  # it knows no leaf after the signature yet
    agent.speak()
    agent.deliver()
    log.now_ms += SECOND
    [incident] = read(log).standing
    assert (incident.kind, incident.count, incident.digest) == (
        Kind.SIGNED_NOT_REPORTED,
        2,
        agent.key,
    )


def test_a_thief_with_a_certificate_that_no_agent_has(log: Log) -> None:
    honest = Agent(log, 1)
    log.sign(WORKLOAD, bytes(32), log.intent())
    for _ in range(8):
        honest.sign()
        honest.speak()
        honest.deliver()
        log.now_ms += 10 * MINUTE
    assert found(log) == [Kind.LATE, Kind.SILENCE]
    honest.end()
    assert found(log, until_ms=log.now_ms + TIMING.cut_ms) == [Kind.SIGNED_NOT_REPORTED]


def test_a_slow_agent_is_late_and_nothing_more(log: Log) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    agent.sign()
    agent.reached = False
    log.now_ms += TIMING.silence_ms - 1
    assert found(log) == [Kind.LATE]
    log.now_ms += 2
    assert found(log) == [Kind.LATE, Kind.SILENCE]
    agent.reached = True
    agent.end()
    log.now_ms += 48 * HOUR
    assert found(log) == []


def test_a_life_that_does_not_come_back_is_a_cut_tail(log: Log) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    agent.sign()
    log.now_ms += TIMING.cut_ms + 1
    assert set(found(log)) == {Kind.CUT_TAIL, Kind.SIGNED_NOT_REPORTED}


def test_a_killed_agent_whose_journal_is_found_is_none(log: Log) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    agent.sign(answered=False)
    agent.crash()
    agent.crash()
    agent.end()
    assert found(log, until_ms=log.now_ms + 48 * HOUR) == []


def test_records_that_a_later_life_announces_and_nobody_brings_are_a_gap(log: Log) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    agent.sign()
    agent.crash()
    del agent.sealed[0]
    agent.end()
    assert Kind.GAP in found(log, until_ms=log.now_ms + TIMING.silence_ms)


def test_an_outcome_that_names_another_entry(log: Log) -> None:
    agent = Agent(log, 1)
    agent.sign()
    agent.done(log.intent(), 0)
    agent.deliver()
    assert found(log) == [Kind.REPORTED_NOT_SIGNED]


def test_an_outcome_that_names_an_entry_that_was_settled_long_ago_is_looked_up(log: Log) -> None:
    agent = Agent(log, 1)
    intent_id = agent.sign()
    agent.deliver()
    agent.done(intent_id, 0)
    agent.deliver()
    assert found(log) == []


def test_an_agent_that_saw_two_logs(log: Log) -> None:
    agent = Agent(log, 1)
    agent.write(pb.AuditRecord(kind=pb.AUDIT_KIND_SPLIT_VIEW, log_fault=pb.LOG_FAULT_FORKED))
    agent.deliver()
    assert found(log) == [Kind.SPLIT_VIEW]


def test_an_agent_that_saw_an_older_log(log: Log) -> None:
    """A store was restored from yesterday's copy, and then from a newer one: who saw both can say
    so in the log, which names it for what it was.
    """
    agent = Agent(log, 1)
    agent.write(pb.AuditRecord(kind=pb.AUDIT_KIND_SPLIT_VIEW, log_fault=pb.LOG_FAULT_SHRUNK))
    agent.deliver()
    assert found(log) == [Kind.ROLLED_BACK]


def test_an_object_in_the_token_that_nothing_accounts_for(log: Log) -> None:
    """From the adapter's own look, until it is gone."""
    about = (DriftKind.UNKNOWN_OBJECT, "a-key", "object", b"\x0d" * 32, log.now_ms)
    log.add(Drifted(log.now_ms, POLICY, Act.UNKNOWN_OBJECT, *about).encode())
    assert found(log) == [Kind.UNKNOWN_KEY_OBJECT]
    log.add(Drifted(log.now_ms, POLICY, Act.DRIFT_GONE, *about).encode())
    assert found(log) == []


def test_each_kind_of_incident_is_raised_by_a_rule_and_found_in_a_test() -> None:
    """A kind that nothing raises is a row of the runbook that never comes true."""
    root = Path(__file__).parents[3]
    rules = [*(root / "evidence/capsign_evidence/reconcile").glob("*.py")]
    rules += (root / "adapter/capsign_adapter/reconcile").glob("*.py")
    raised = {
        one.attr
        for path in rules
        for statement in ast.parse(path.read_text()).body
        if not _is_set(statement)
        for one in ast.walk(statement)
        if isinstance(one, ast.Attribute) and one.attr in Kind.__members__
    }
    assert raised == set(Kind.__members__)
    tests = [*root.glob("tests/**/reconcile/test_*.py"), root / "tests/cli/test_audit_reconcile.py"]
    said = " ".join(path.read_text() for path in tests).lower().replace("-", "_")
    assert not {one for one in raised if one.lower() not in said}


def _is_set(statement: ast.stmt) -> bool:
    """Whether it only names kinds that have something in common."""
    value = statement.value if isinstance(statement, ast.Assign) else None
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "frozenset"


def test_a_batch_that_is_left_out(log: Log) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    agent.sign()
    agent.seal()
    del agent.sealed[0]
    agent.sign()
    agent.deliver()
    [gap, *_] = read(log).standing
    assert (gap.kind, gap.first, gap.last) == (Kind.GAP, 3, 4)


def test_a_batch_that_stands_there_twice(log: Log) -> None:
    agent = Agent(log, 1)
    agent.seal()
    [batch] = agent.sealed
    agent.deliver()
    log.take(WORKLOAD, batch)
    assert found(log) == [Kind.REPLAYED_BATCH]


def test_a_batch_of_a_life_that_has_ended(log: Log) -> None:
    agent = Agent(log, 1)
    agent.seal()
    [batch] = agent.sealed
    agent.end()
    log.take(WORKLOAD, batch)
    assert found(log) == [Kind.REPLAYED_BATCH]


def test_a_batch_of_another_workload(log: Log) -> None:
    agent = Agent(log, 1)
    agent.seal()
    [batch] = agent.sealed
    agent.deliver()
    log.take(OTHER, batch)
    assert found(log) == [Kind.REPLAYED_BATCH]


def test_a_chain_that_is_forged(log: Log) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    agent.previous = bytes(32)
    agent.sign()
    agent.deliver()
    assert found(log) == [Kind.FORGED_CHAIN]


def test_two_stories_of_one_life(log: Log) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    agent.sign()
    agent.seal()
    [told] = agent.sealed
    agent.deliver()
    other = pb.AuditBatch.FromString(told)
    other.records[0].intent_id = bytes(16)
    log.take(WORKLOAD, other.SerializeToString(deterministic=True))
    assert found(log) == [Kind.FORGED_CHAIN]


@pytest.mark.parametrize("kept", [b"", b"other bytes"])
def test_bytes_that_are_not_those_of_the_batch(log: Log, kept: bytes) -> None:
    agent = Agent(log, 1)
    agent.seal()
    log.take(WORKLOAD, agent.sealed[0], kept)
    assert found(log) == [Kind.BATCH_LOST]


def test_what_was_missing_and_comes_after_all_has_ended(log: Log) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    agent.sign()
    agent.seal()
    log.now_ms += TIMING.cut_ms + 1
    reconciler = read(log)
    assert len(reconciler.standing) == 2
    agent.deliver()
    reconciler.entry(log.entries[-1], log.batches[len(log.entries) - 1])
    assert reconciler.standing == []
    changes = [(state.name, incident.kind) for state, incident in reconciler.take_changes()]
    assert changes[-2:] == [("ENDED", Kind.CUT_TAIL), ("ENDED", Kind.SIGNED_NOT_REPORTED)]


def test_what_passes_hides_nothing_that_does_not(log: Log) -> None:
    """64 silent lives of a workload kept its theft, and its cut tails, from being told for good."""
    for number in range(2, 100):
        Agent(log, number).deliver()
    agent = Agent(log, 1)
    agent.deliver()
    log.sign(WORKLOAD, agent.key, log.intent())
    for _ in range(3):
        log.now_ms += TIMING.silence_ms // 2
        agent.speak()
        agent.deliver()
    reconciler = read(log)
    kinds = Counter(one.kind for one in reconciler.standing)
    assert kinds == {Kind.SILENCE: 32, Kind.SIGNED_NOT_REPORTED: 1}
    assert reconciler.untold == 98 - 32
    wait(reconciler, log.now_ms + TIMING.cut_ms)
    kinds = Counter(one.kind for one in reconciler.standing)
    assert kinds[Kind.CUT_TAIL] == 63


def test_a_theft_that_found_no_room_is_told_once_there_is_some(log: Log) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    log.sign(WORKLOAD, agent.key, log.intent())
    agent.speak()
    agent.deliver()
    agent.speak()
    agent.deliver()
    crowd = [
        Incident(Kind.GAP, WORKLOAD, numbered(number), b"", b"", 0, 1, 1, 1, 1)
        for number in range(64)
    ]
    reconciler = Reconciler(TIMING, lambda index: log.entries[index], None, crowd)
    for index, entry in enumerate(log.entries):
        reconciler.entry(entry, log.batches.get(index))
    wait(reconciler, log.now_ms + TIMING.report_ms)
    assert {one.kind for one in reconciler.standing} == {Kind.GAP}
    assert reconciler.untold == 1
    known = msgspec.msgpack.decode(msgspec.msgpack.encode(reconciler.state), type=State)
    reconciler = Reconciler(TIMING, lambda index: log.entries[index], known, crowd[1:])
    reconciler.sweep()
    assert Kind.SIGNED_NOT_REPORTED in {one.kind for one in reconciler.standing}
    assert reconciler.untold == 0


def test_what_is_found_once_and_finds_no_room_is_told_once_there_is_some(log: Log) -> None:
    """A gap or a second story of one life shows once. It was counted, and then nobody ever heard
    whose it was.
    """
    agent = Agent(log, 1)
    agent.write(pb.AuditRecord(kind=pb.AUDIT_KIND_SPLIT_VIEW, log_fault=pb.LOG_FAULT_FORKED))
    agent.deliver()
    crowd = [
        Incident(Kind.GAP, WORKLOAD, numbered(number), b"", b"", 0, 1, 1, 1, 1)
        for number in range(64)
    ]
    reconciler = Reconciler(TIMING, lambda index: log.entries[index], None, crowd)
    for index, entry in enumerate(log.entries):
        reconciler.entry(entry, log.batches.get(index))
    assert (reconciler.take_changes(), reconciler.untold) == ([], 1)
    known = msgspec.msgpack.decode(msgspec.msgpack.encode(reconciler.state), type=State)
    # a person closes one of the others, and another replica goes on
    reconciler = Reconciler(TIMING, lambda index: log.entries[index], known, crowd[1:])
    [change] = reconciler.take_changes()
    assert (change.state, change.incident.kind) == (IncidentState.FOUND, Kind.SPLIT_VIEW)
    assert change.incident.boot_id == agent.boot
    assert (reconciler.untold, reconciler.state.waiting) == (0, [])


def test_what_finds_no_room_to_wait_either_is_an_incident_of_its_own(log: Log) -> None:
    """The 4,097th was in no number at all, and then in one that nobody is woken by: an attacker who
    shows gaps by the thousand had his last one for free. It stands, over a restart too, until a
    person closes it, and then begins anew.
    """
    crowd = [
        Incident(Kind.GAP, WORKLOAD, numbered(number), b"", b"", 0, 1, 1, 1, 1)
        for number in range(64 + MAX_UNTOLD)
    ]
    state = State(waiting=crowd[64:])
    reconciler = Reconciler(TIMING, lambda index: log.entries[index], state, crowd[:64])
    assert reconciler.untold == MAX_UNTOLD
    agent = Agent(log, 1)
    agent.write(pb.AuditRecord(kind=pb.AUDIT_KIND_SPLIT_VIEW, log_fault=pb.LOG_FAULT_FORKED))
    agent.deliver()
    for index, entry in enumerate(log.entries):
        reconciler.entry(entry, log.batches.get(index))
    [change] = reconciler.take_changes()
    forgotten = change.incident
    assert (change.state, forgotten.key, forgotten.count) == (IncidentState.FOUND, FORGOTTEN, 1)
    assert forgotten.leaf_index_plus_one == len(log.entries)
    assert reconciler.untold == MAX_UNTOLD + 1
    known = msgspec.msgpack.decode(msgspec.msgpack.encode(reconciler.state), type=State)
    again = Reconciler(TIMING, lambda index: log.entries[index], known, reconciler.standing)
    assert (again.take_changes(), again.untold) == ([], MAX_UNTOLD + 1)
    closed = Reconciler(TIMING, lambda index: log.entries[index], known, crowd[:64])
    assert (closed.take_changes(), closed.untold) == ([], MAX_UNTOLD)


def test_so_many_were_forgotten() -> None:
    """It takes no place from others and needs none, however full it is, and grows."""
    crowd = [
        Incident(Kind.GAP, "", numbered(number), b"", b"", 0, 1, 1, 1, 1)
        for number in range(MAX_STANDING + MAX_UNTOLD)
    ]
    standing = Standing(crowd[:MAX_STANDING], crowd[MAX_STANDING:])
    for number in range(3):
        key = IncidentKey(Kind.FORGED_CHAIN, WORKLOAD, numbered(number), bytes(32))
        assert not standing.found(key, 5 + number, leaf_index=7 + number)
    assert [one.incident.key for one in standing.take_changes()] == [FORGOTTEN]
    [one] = [one for one in standing if one.kind is Kind.INCIDENTS_FORGOTTEN]
    assert (one.count, one.since_ms, one.leaf_index_plus_one) == (3, 5, 8)
    standing.ended(FORGOTTEN)
    assert standing.untold == MAX_UNTOLD


def test_what_waits_for_room_is_told_as_soon_as_another_ends() -> None:
    crowd = [
        Incident(Kind.GAP, "", numbered(number), b"", b"", 0, 1, 1, 1, 1)
        for number in range(MAX_STANDING)
    ]
    standing = Standing(crowd)
    key = IncidentKey(Kind.FORGED_CHAIN, WORKLOAD, numbered(1), bytes(32))
    assert not standing.found(key, 5, count=2)
    assert not standing.found(key, 6, count=3)
    standing.ended(crowd[0].key)
    assert [one.incident.key for one in standing.take_changes()] == [crowd[0].key, key]
    assert standing.has(key)
    assert [(one.count, one.since_ms) for one in standing if one.key == key] == [(5, 5)]


def test_a_backlog_of_an_honest_agent_accuses_nobody_however_long(log: Log) -> None:
    """What no longer fitted was a critical incident, and stood for good though all was told."""
    agent = Agent(log, 1)
    agent.deliver()
    intents = [agent.sign() for _ in range(20)]
    reconciler = Reconciler(TIMING, lambda index: log.entries[index], bounds=Bounds(8, 8))

    def read_on() -> None:
        for index in range(reconciler.state.position, len(log.entries)):
            reconciler.entry(log.entries[index], log.batches.get(index))
        wait(reconciler, log.now_ms)

    log.now_ms += TIMING.report_ms
    read_on()
    assert {one.kind for one in reconciler.standing} == {Kind.LATE}
    assert reconciler.unjudged == len(intents) - 8
    agent.deliver()
    read_on()
    assert (reconciler.standing, reconciler.unjudged) == ([], 0)


def test_more_that_was_missing_than_is_remembered_ends_when_all_of_it_is_told(log: Log) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    for _ in range(20):
        agent.sign()
    reconciler = Reconciler(TIMING, lambda index: log.entries[index], bounds=Bounds(64, 4))
    for index, entry in enumerate(log.entries):
        reconciler.entry(entry, log.batches.get(index))
    wait(reconciler, log.now_ms + TIMING.cut_ms + MINUTE)
    missing = [one for one in reconciler.standing if one.kind is Kind.SIGNED_NOT_REPORTED]
    assert [one.count for one in missing] == [20]
    agent.deliver()
    reconciler.entry(log.entries[-1], log.batches[len(log.entries) - 1])
    assert reconciler.standing == []


def test_who_signs_without_end_is_one_incident_and_bounded(log: Log) -> None:
    for _ in range(100):
        log.sign(WORKLOAD, bytes(32), log.intent())
    reconciler = Reconciler(TIMING, lambda index: log.entries[index], bounds=Bounds(8, 8))
    for entry in log.entries:
        reconciler.entry(entry)
    kept = reconciler.state.workloads[WORKLOAD].groups[bytes(32)]
    assert len(kept.fresh) + len(kept.late) + len(kept.missing) <= 3 * 8
    total = len(kept.fresh) + len(kept.late) + len(kept.missing) + kept.lost
    assert total + reconciler.unjudged == 100
    wait(reconciler, log.now_ms + TIMING.cut_ms + MINUTE)
    [incident] = reconciler.standing
    assert (incident.kind, incident.count) == (Kind.SIGNED_NOT_REPORTED, 8)


def test_an_outage_of_the_adapter_is_nobodys_silence(log: Log) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    log.now_ms += 48 * HOUR
    agent.speak()
    agent.deliver()
    reconciler = read(log)
    assert reconciler.standing == []
    assert reconciler.take_changes() == []


def test_an_agent_of_an_older_release_may_be_killed_and_nobody_says_so(log: Log) -> None:
    """It neither speaks while it has nothing to tell, nor names the life before it."""
    agent = Agent(log, 1)
    del agent.records[1]
    agent.sequence = 1
    agent.sign()
    agent.deliver()
    assert found(log, until_ms=log.now_ms + 48 * HOUR) == []


def test_an_agent_of_an_older_release_that_goes_on_after_a_day_is_believed(log: Log) -> None:
    """It was taken for ended, and its next batch for a forged one."""
    agent = Agent(log, 1)
    del agent.records[1]
    agent.sequence = 1
    agent.sign()
    agent.deliver()
    reconciler = read(log, until_ms=log.now_ms + 25 * HOUR)
    log.now_ms += 25 * HOUR
    agent.sign()
    agent.deliver()
    for index in range(reconciler.state.position, len(log.entries)):
        reconciler.entry(log.entries[index], log.batches.get(index))
    assert reconciler.standing == []


def test_what_an_outcome_says_of_an_entry_before_the_archive_is_not_known(log: Log) -> None:
    agent = Agent(log, 1)
    agent.sign()
    agent.deliver()
    reconciler = Reconciler(TIMING, lambda _: None, State(position=1, began=1))
    reconciler.entry(log.entries[1], log.batches[1])
    assert reconciler.standing == []


def test_a_clock_that_was_ahead_does_not_stop_time(log: Log) -> None:
    """One entry from the year after kept everything from being judged until then."""
    agent = Agent(log, 1)
    agent.deliver()
    log.sign(WORKLOAD, agent.key, log.intent())
    real_ms = log.now_ms
    log.now_ms += 365 * 24 * HOUR
    Agent(log, 2, OTHER).end()
    reconciler = read(log)
    for _ in range(26 * 60):
        real_ms += MINUTE
        reconciler.advance(real_ms)
    assert {one.kind for one in reconciler.standing} == {Kind.CUT_TAIL, Kind.SIGNED_NOT_REPORTED}
    assert reconciler.state.wall_ms == real_ms


def test_clocks_that_contradict_each_other_count_no_time_twice(log: Log) -> None:
    reconciler = Reconciler(TIMING, lambda _: None)
    reconciler.advance(log.now_ms)
    before_ms = reconciler.state.now_ms
    for _ in range(100):
        reconciler.advance(log.now_ms + 5 * HOUR)
        for _ in range(100):
            log.now_ms += SECOND
            reconciler.advance(log.now_ms)
    passed_ms = reconciler.state.now_ms - before_ms
    assert 0 <= passed_ms <= 100 * 100 * SECOND + MAX_STEP_MS


def test_what_ended_long_ago_is_forgotten(log: Log) -> None:
    for number in range(1, 50):
        agent = Agent(log, number)
        agent.sign()
        agent.write(pb.AuditRecord(kind=pb.AUDIT_KIND_IDENTITY_RENEWED, certificate_key=agent.key))
        agent.end()
    reconciler = read(log)
    claims = reconciler.state.workloads[WORKLOAD].claims
    assert [len(boots) for boots in claims.values()] == [1] * 49
    wait(reconciler, log.now_ms + 25 * HOUR)
    assert reconciler.state.workloads == {}


def test_lives_without_end_that_say_one_certificate_is_theirs_are_bounded(log: Log) -> None:
    """Each of them lives, so that none is forgotten for having ended."""
    first = Agent(log, 1)
    for number in range(1, MAX_LIVES_OF_KEY + 9):
        agent = Agent(log, number)
        renewed = pb.AUDIT_KIND_IDENTITY_RENEWED
        agent.write(pb.AuditRecord(kind=renewed, certificate_key=first.key))
        agent.deliver()
    reconciler = read(log)
    boots = reconciler.state.workloads[WORKLOAD].claims[first.key]
    assert len(reconciler.state.lives) == MAX_LIVES_OF_KEY + 8
    assert len(boots) == MAX_LIVES_OF_KEY
    assert boots[-1] == agent.boot, "the oldest are forgotten"


def test_lives_without_end_of_one_workload_cost_others_nothing(log: Log) -> None:
    """Whoever begins one life after another loses sight of those that are silent for longest, and
    of no other workload's.
    """
    other = Agent(log, 1, OTHER)
    other.deliver()
    for number in range(MAX_LIVES + 3):
        boot = numbered(number + 1_000_000)
        entry = leaf.agent_batch(log.now_ms, POLICY, WORKLOAD, boot, 1, 1, bytes(32), closes=False)
        log.add(entry)
    reconciler = Reconciler(TIMING, lambda index: log.entries[index])
    for index, entry in enumerate(log.entries):
        reconciler.entry(entry, log.batches.get(index))
    state = reconciler.state
    assert Counter(life.workload for life in state.lives.values()) == {
        WORKLOAD: MAX_LIVES,
        OTHER: 1,
    }
    assert list(state.cut) == [numbered(number + 1_000_000) for number in range(3)]
