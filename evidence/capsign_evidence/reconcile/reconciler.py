"""The fold: one entry after the other, and with an entry about a batch its bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter

from capsign_wire.adapter.v1 import evidence_pb2 as pb

from capsign_evidence import told_calls
from capsign_evidence.drift_leaf import Drifted, DriftKind
from capsign_evidence.incident_leaf import IncidentKind
from capsign_evidence.leaf_kinds import Act, Kind
from capsign_evidence.leaf_reader import AgentBatch, decode
from capsign_evidence.reconcile import columns, leaves
from capsign_evidence.reconcile.incidents import Change, Incident, IncidentKey, Standing
from capsign_evidence.reconcile.lives import Lives, Records
from capsign_evidence.reconcile.signatures import EntryAt, Signatures
from capsign_evidence.reconcile.state import Bounds, State
from capsign_evidence.reconcile.timing import MAX_STEP_MS, Timing

SWEEP_MS = 5000
"""Of the log's time, between looks for what has become due."""

MAX_BEHIND = 64
"""Entries in a row that are far behind the time that was heard: then that one was wrong."""

_AGENT_BATCH, _DRIFT = int(Kind.AGENT_BATCH), int(Kind.DRIFT)
_CALL = attrgetter("kind", "outcome", "intent_id", "leaf_index_plus_one")
"""What `Signatures.told` takes."""
_KIND = attrgetter("kind")
_OTHER, _OF_ONE, _OF_MANY = range(3)
"""Records about something else than calls, about one call, and about many."""


class Reconciler:
    """Holds the two streams against each other, in the log's order. For one thread.

    Reads nothing by itself, but for `entry_at`. Its time is that of the entries, so that a copy
    says the same whenever it is read; `advance` adds that nothing has come since.
    """

    def __init__(
        self,
        timing: Timing,
        entry_at: EntryAt,
        state: State | None = None,
        standing: Iterable[Incident] = (),
        bounds: Bounds = Bounds(),  # noqa: B008 - a constant
    ) -> None:
        """`state`: what another one had come to, and `standing` the incidents that stood then."""
        self.state = State() if state is None else state
        self._standing = Standing(standing, self.state.waiting)
        self._signatures = Signatures(self.state, self._standing, timing, entry_at, bounds)
        self._lives = Lives(self.state, self._standing, timing)

    @property
    def standing(self) -> list[Incident]:
        """The incidents that stand now."""
        return list(self._standing)

    @property
    def untold(self) -> int:
        """How many incidents were found and are not told, since too many stand."""
        return self._standing.untold

    @property
    def unjudged(self) -> int:
        """How many signatures were forgotten before they could be judged, since too many were open
        at once, and no agent has told of since.
        """
        return sum(one.unjudged for one in self.state.workloads.values())

    def take_changes(self) -> list[Change]:
        """What was found and what has ended since this was called last."""
        self.state.waiting = self._standing.waiting()
        return self._standing.take_changes()

    def entry(self, entry: bytes, batch: bytes | None = None) -> None:
        """The next entry; `batch` are the bytes kept of it if it is about one. Raises LeafError."""
        index = self.state.position
        self.state.position += 1
        self._pass(leaves.time_of(entry))
        kind = leaves.kind_of(entry)
        if kind in leaves.SIGNED:
            self._signatures.signed(index, leaves.signed(entry))
        elif kind == _AGENT_BATCH:
            leaf = decode(entry)
            assert isinstance(leaf, AgentBatch)
            self._batch(index, leaf, batch)
        elif kind == _DRIFT:
            self._drift(index, decode(entry))
        if self.state.now_ms >= self.state.swept_ms + SWEEP_MS:
            self.sweep()

    def run(self, run: Sequence[bytes]) -> None:
        """As `entry` for each of a run of signatures (`leaves.run_of`), in a fraction of the time.
        Raises LeafError if the first is none; then the others were not looked at.
        """
        first = self.state.position
        self.entry(run[0])
        leaf = leaves.signed(run[0])
        rest = run[1:]
        if self.state.wall_ms != leaf.time_ms:  # of a clock that is behind
            for entry in rest:
                self.entry(entry)
        elif rest:
            # No time passes among them, so that nothing falls due.
            self._signatures.signed_each(first + 1, leaf, leaves.intents_of(rest))
            self.state.position += len(rest)

    def advance(self, now_ms: int) -> None:
        """Nothing has come until now, milliseconds since 1970. To be called again and again: of
        more than MAX_STEP_MS only that counts.
        """
        self._pass(now_ms)
        self.sweep()

    def sweep(self) -> None:
        """Judge what has become due by the log's time."""
        self.state.swept_ms = self.state.now_ms
        self._lives.sweep()
        self._signatures.sweep()

    def _pass(self, wall_ms: int) -> None:
        """Time goes on. A clock that was far ahead counts for one step; once it was contradicted
        often enough, time goes on from the others', that step later.
        """
        known = self.state
        passed = wall_ms - known.wall_ms
        known.behind = known.behind + 1 if passed < -MAX_STEP_MS else 0
        if known.behind >= MAX_BEHIND:
            known.behind, known.wall_ms = 0, wall_ms
            known.ahead_ms += MAX_STEP_MS
        elif passed > 0:
            counted = min(passed, MAX_STEP_MS)
            early = min(counted, known.ahead_ms)
            known.ahead_ms -= early
            known.now_ms += counted - early
            known.wall_ms = wall_ms

    def conclude(self) -> None:
        """The log ends here: judge what can be judged without waiting."""
        self.sweep()
        self._signatures.conclude()

    def _batch(self, index: int, leaf: AgentBatch, kept: bytes | None) -> None:
        records = self._lives.batch(index, leaf, kept)
        if records is not None:
            self._records(index, leaf, records)
        self._lives.end_of(leaf)

    def _records(self, index: int, leaf: AgentBatch, records: Records) -> None:
        """What the records of a batch say, in their order; most are about calls."""
        horizon, speaks, now_ms = 0, False, self.state.now_ms
        for about, told in _stretches(records):
            if about == _OF_ONE:
                wrong = partial(self._not_signed, index, leaf, told)
                calls = map(_CALL, told)
                horizon = max(horizon, self._signatures.told(leaf.workload, calls, now_ms, wrong))
                continue
            if about == _OF_MANY:
                for record in told:
                    horizon = max(horizon, self._many(index, leaf, record))
                continue
            for record in told:
                heard, through = self._other(index, leaf, record)
                speaks |= heard
                horizon = max(horizon, through)
        life = self.state.lives.get(leaf.boot_id)
        if life is not None:
            life.horizon = max(life.horizon, horizon)
            life.speaks |= speaks

    def _many(self, index: int, leaf: AgentBatch, record: pb.AuditRecord) -> int:
        """What one record says of many calls; returns as `Signatures.told`."""
        intent_ids = told_calls.intents(record)
        wrong = partial(self._not_signed, index, leaf, [record] * len(intent_ids))
        first, step = record.leaf_index_plus_one, int(told_calls.follows(record))
        told = columns.Told(record.kind, record.outcome, first, step)
        mine = self.state.workloads.get(leaf.workload)
        last = columns.settled(mine, intent_ids, told) if mine is not None else None
        if last is not None:
            return last
        calls = columns.each(intent_ids, told)
        return self._signatures.told(leaf.workload, calls, self.state.now_ms, wrong)

    def _other(self, index: int, leaf: AgentBatch, record: pb.AuditRecord) -> tuple[bool, int]:
        """A record about the agent itself. Returns whether only an agent that speaks writes it, and
        how many leaves the log had by it; 0 for nothing.
        """
        if record.kind == pb.AUDIT_KIND_RECOVERED:
            self._lives.left(leaf.workload, record.other_boot, record.other_sequence)
            return True, 0
        if record.kind == pb.AUDIT_KIND_ALIVE:
            return True, min(record.leaf_index_plus_one, index)
        if record.kind == pb.AUDIT_KIND_SPLIT_VIEW:
            self._split_view(index, leaf, record)
        elif record.certificate_key:
            self._signatures.claimed(leaf.workload, record.certificate_key, leaf.boot_id)
            return True, 0
        return False, 0

    def _split_view(self, index: int, leaf: AgentBatch, record: pb.AuditRecord) -> None:
        """Another log than the agent had seen; one with fewer leaves was set back."""
        shrunk = record.log_fault == pb.LOG_FAULT_SHRUNK
        kind = IncidentKind.ROLLED_BACK if shrunk else IncidentKind.SPLIT_VIEW
        self._standing.found(
            IncidentKey(kind, leaf.workload, leaf.boot_id),
            self.state.wall_ms,
            leaf_index=index,
            span=(record.sequence, record.sequence),
        )

    def _not_signed(
        self, index: int, leaf: AgentBatch, records: Records, place: int, call: tuple[bytes, int]
    ) -> None:
        """One of these records names an entry, plus one, that is not about its intent."""
        intent_id, named = call
        if 0 < named <= self.state.began:
            return  # what was before is not known
        sequence = records[place].sequence
        self._standing.found(
            IncidentKey(IncidentKind.REPORTED_NOT_SIGNED, leaf.workload, leaf.boot_id),
            self.state.wall_ms,
            intent_id=intent_id,
            leaf_index=index,
            span=(sequence, sequence),
        )

    def _drift(self, index: int, leaf: object) -> None:
        """An object in the token that nothing accounts for, found or gone."""
        if not isinstance(leaf, Drifted) or leaf.drift is not DriftKind.UNKNOWN_OBJECT:
            return
        key = IncidentKey(IncidentKind.UNKNOWN_KEY_OBJECT, "", b"", leaf.digest)
        if leaf.act is Act.DRIFT_GONE:
            self._standing.ended(key)
        else:
            self._standing.found(key, leaf.time_ms, leaf_index=index)


def _stretches(records: Records) -> Iterator[tuple[int, Records]]:
    """Records in their order, those about one call, about many and about none apart."""
    few = not any(map(told_calls.more_intents, records))
    if few and told_calls.CALLS.issuperset(map(_KIND, records)):
        yield _OF_ONE, records
        return
    for about, each in groupby(records, _about):
        yield about, list(each)


def _about(record: pb.AuditRecord) -> int:
    if record.kind not in told_calls.CALLS:
        return _OTHER
    return _OF_MANY if record.more_intents else _OF_ONE
