"""The fold: one entry after the other, and with an entry about a batch its bytes."""

from __future__ import annotations

from collections.abc import Iterable

from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import failures_pb2

from capsign_evidence.drift_leaf import Drifted, DriftKind
from capsign_evidence.incident_leaf import IncidentKind
from capsign_evidence.leaf_kinds import Act, Kind
from capsign_evidence.leaf_reader import AgentBatch, decode
from capsign_evidence.reconcile import leaves
from capsign_evidence.reconcile.incidents import Change, Incident, IncidentKey, Standing
from capsign_evidence.reconcile.lives import Lives
from capsign_evidence.reconcile.signatures import EntryAt, Signatures
from capsign_evidence.reconcile.state import Bounds, State
from capsign_evidence.reconcile.timing import MAX_STEP_MS, Timing

SWEEP_MS = 5000
"""Of the log's time, between looks for what has become due."""

MAX_BEHIND = 64
"""Entries in a row that are far behind the time that was heard: then that one was wrong."""

_AGENT_BATCH, _DRIFT = int(Kind.AGENT_BATCH), int(Kind.DRIFT)
_INTENT, _OUTCOME = int(pb.AUDIT_KIND_INTENT), int(pb.AUDIT_KIND_OUTCOME)
_DONE, _REFUSED = failures_pb2.OUTCOME_DONE, failures_pb2.OUTCOME_REFUSED


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
        batch = self._lives.batch(index, leaf, kept)
        if batch is not None:
            self._records(index, leaf, batch)
        self._lives.end_of(leaf)

    def _records(self, index: int, leaf: AgentBatch, batch: pb.AuditBatch) -> None:
        """What the records of a batch say, in their order."""
        workload, boot_id, now_ms = leaf.workload, leaf.boot_id, self.state.now_ms
        signatures, horizon, speaks = self._signatures, 0, False
        for record in batch.records:
            kind = record.kind
            if kind == _INTENT:
                signatures.asked(workload, record.intent_id, now_ms)
            elif kind == _OUTCOME:
                if record.outcome == _DONE:
                    named = record.leaf_index_plus_one
                    if signatures.done(workload, record.intent_id, named - 1):
                        horizon = max(horizon, named)
                    elif not 0 < named <= self.state.began:  # what was before is not known
                        self._not_signed(index, leaf, record)
                else:
                    refused = record.outcome == _REFUSED
                    signatures.failed(workload, record.intent_id, refused=refused)
            elif kind == pb.AUDIT_KIND_RECOVERED:
                self._lives.left(workload, record.other_boot, record.other_sequence)
                speaks = True
            elif kind == pb.AUDIT_KIND_ALIVE:
                horizon = max(horizon, min(record.leaf_index_plus_one, index))
                speaks = True
            elif kind == pb.AUDIT_KIND_SPLIT_VIEW:
                self._split_view(index, leaf, record)
            elif record.certificate_key:
                signatures.claimed(workload, record.certificate_key, boot_id)
                speaks = True
        life = self.state.lives.get(boot_id)
        if life is not None:
            life.horizon = max(life.horizon, horizon)
            life.speaks |= speaks

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

    def _not_signed(self, index: int, leaf: AgentBatch, record: pb.AuditRecord) -> None:
        self._standing.found(
            IncidentKey(IncidentKind.REPORTED_NOT_SIGNED, leaf.workload, leaf.boot_id),
            self.state.wall_ms,
            intent_id=record.intent_id,
            leaf_index=index,
            span=(record.sequence, record.sequence),
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
