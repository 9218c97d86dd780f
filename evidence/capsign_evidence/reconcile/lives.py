"""Lives of agents: whether a batch continues the chain that it is part of, and who has fallen
silent.
"""

from __future__ import annotations

import hashlib
from collections import Counter

from capsign_wire.adapter.v1 import evidence_pb2
from google.protobuf.message import DecodeError

from capsign_evidence import told_calls
from capsign_evidence.incident_leaf import IncidentKind
from capsign_evidence.leaf_reader import AgentBatch
from capsign_evidence.reconcile import state
from capsign_evidence.reconcile.incidents import IncidentKey, Standing
from capsign_evidence.reconcile.state import Life, State, bound
from capsign_evidence.reconcile.timing import Timing

Batch = evidence_pb2.AuditBatch
Records = list[evidence_pb2.AuditRecord]


class Lives:
    """Works on the state that it is given."""

    def __init__(self, known: State, standing: Standing, timing: Timing) -> None:
        self._state = known
        self._standing = standing
        self._timing = timing
        self._of = Counter(life.workload for life in known.lives.values())

    def batch(self, index: int, leaf: AgentBatch, kept: bytes | None) -> Records | None:
        """An entry about a batch, and the bytes that are kept of it. Returns its records if they
        are this life's next; what is wrong is an incident.
        """
        if self._taken_before(index, leaf):
            return None
        life = self._heard(leaf.boot_id, leaf.workload)
        gap = leaf.first_sequence > life.through + 1
        if gap and (life.through or not self._state.began):
            self._gap(leaf.workload, leaf.boot_id, life.through + 1, leaf.first_sequence - 1, index)
        read = self._read(index, leaf, kept)
        if read is not None and not gap and read[0] != life.last_hash:
            self._find(IncidentKind.FORGED_CHAIN, index, leaf)
        life.through, life.last_hash = leaf.last_sequence, leaf.batch_hash
        life.recent[leaf.last_sequence] = leaf.batch_hash[:8]
        bound(life.recent, state.MAX_RECENT)
        return read[1] if read is not None else None

    def end_of(self, leaf: AgentBatch) -> None:
        """After the records of a batch: whether its life has ended with it."""
        life = self._state.lives.get(leaf.boot_id)
        if life is not None and (leaf.closes or 0 < life.left_through <= life.through):
            self._end(leaf.boot_id, life)

    def left(self, workload: str, boot_id: bytes, through: int) -> None:
        """A later life says what this one left: its last sequence number, 0 if all was gone."""
        life = self._state.lives.get(boot_id) or self._state.cut.get(boot_id)
        unheard = boot_id not in self._state.ended and not self._state.began
        if life is None and unheard and through:
            life = self._heard(boot_id, workload)
        if life is None or life.workload != workload:
            return
        if through <= life.through:
            self._end(boot_id, life)
        else:
            life.left_through = through

    def sweep(self) -> None:
        """Who has fallen silent, and whose tail is lost."""
        now_ms = self._state.now_ms
        for boot_id, life in list(self._overdue(now_ms - self._timing.silence_ms)):
            if life.left_through > life.through:
                # Another life of the same agent speaks and has announced these records.
                span = (life.through + 1, life.left_through)
                self._gap(life.workload, boot_id, *span, -1)
                self._end(boot_id, life)
            elif life.last_ms + self._timing.cut_ms <= now_ms:
                self._cut(boot_id, life)
            elif life.speaks and not life.silent:
                life.silent = self._tell(IncidentKind.SILENCE, boot_id, life)

    def _overdue(self, due_ms: int) -> list[tuple[bytes, Life]]:
        overdue = []
        for boot_id, life in self._state.lives.items():
            if life.last_ms > due_ms:
                break
            overdue.append((boot_id, life))
        return overdue

    def _cut(self, boot_id: bytes, life: Life) -> None:
        """It does not come back. Without room to say so it is looked at again. Of one that does
        not speak nothing is said: it may go on, or have ended long ago.
        """
        life.silent |= life.speaks
        self._standing.ended(IncidentKey(IncidentKind.SILENCE, life.workload, boot_id))
        if life.speaks and not self._tell(IncidentKind.CUT_TAIL, boot_id, life):
            return
        self._set_aside(boot_id, life)

    def _set_aside(self, boot_id: bytes, life: Life) -> None:
        del self._state.lives[boot_id]
        self._of[life.workload] -= 1
        self._state.cut[boot_id] = life
        bound(self._state.cut, state.MAX_CUT)

    def _tell(self, kind: IncidentKind, boot_id: bytes, life: Life) -> bool:
        key = IncidentKey(kind, life.workload, boot_id)
        span = (life.through, life.through)
        return self._standing.found(key, self._state.wall_ms, span=span, count=0)

    def _end(self, boot_id: bytes, life: Life) -> None:
        if self._state.lives.pop(boot_id, None) is not None:
            self._of[life.workload] -= 1
        self._state.cut.pop(boot_id, None)
        self._state.ended[boot_id] = life.through
        bound(self._state.ended, state.MAX_ENDED)
        self._not_silent(boot_id, life)

    def _not_silent(self, boot_id: bytes, life: Life) -> None:
        life.silent = False
        for kind in (IncidentKind.SILENCE, IncidentKind.CUT_TAIL):
            self._standing.ended(IncidentKey(kind, life.workload, boot_id))

    def _heard(self, boot_id: bytes, workload: str) -> Life:
        """This life was heard of now: the last of those that are alive."""
        lives = self._state.lives
        life = lives.pop(boot_id, None)
        if life is None:
            life = self._state.cut.pop(boot_id, None)  # which is `silent`, if it spoke
            self._room_for(life.workload if life is not None else workload)
        if life is None:
            life = Life(workload, self._state.now_ms)
        elif life.silent:
            self._not_silent(boot_id, life)
        life.last_ms = self._state.now_ms
        lives[boot_id] = life
        return life

    def _room_for(self, workload: str) -> None:
        """One more life of it: who has too many loses sight of the one silent for longest."""
        self._of[workload] += 1
        if self._of[workload] > state.MAX_LIVES:
            found = ((b, one) for b, one in self._state.lives.items() if one.workload == workload)
            boot_id, oldest = next(found)
            self._not_silent(boot_id, oldest)
            self._set_aside(boot_id, oldest)

    def _taken_before(self, index: int, leaf: AgentBatch) -> bool:
        """Whether the log has these records already, or has others in their place."""
        life = self._state.lives.get(leaf.boot_id) or self._state.cut.get(leaf.boot_id)
        ended = self._state.ended.get(leaf.boot_id)
        if life is not None and life.workload != leaf.workload:
            self._find(IncidentKind.REPLAYED_BATCH, index, leaf)
            return True
        through = life.through if life is not None else ended
        if through is None or (leaf.first_sequence > through and ended is None):
            return False
        if leaf.first_sequence > through:
            self._find(IncidentKind.FORGED_CHAIN, index, leaf)  # after its last record
            return True
        known = life.recent if life is not None else {}
        before = leaf.last_sequence < min(known, default=0)
        same = not known or before or known.get(leaf.last_sequence) == leaf.batch_hash[:8]
        kind = IncidentKind.REPLAYED_BATCH if same else IncidentKind.FORGED_CHAIN
        self._find(kind, index, leaf)
        return True

    def _read(
        self, index: int, leaf: AgentBatch, kept: bytes | None
    ) -> tuple[bytes, Records] | None:
        """The hash of the batch before, and the records; None if they are not those of the leaf."""
        if kept is None or hashlib.sha256(kept).digest() != leaf.batch_hash:
            self._find(IncidentKind.BATCH_LOST, index, leaf)
            return None
        try:
            batch = Batch.FromString(kept)
        except DecodeError:
            batch = Batch()
        records = list(batch.records)
        numbers = [record.sequence for record in records]
        expected = [*range(leaf.first_sequence, leaf.last_sequence + 1)]
        whole = numbers == expected and told_calls.sound(records)
        if batch.boot_id != leaf.boot_id or not whole:
            self._find(IncidentKind.FORGED_CHAIN, index, leaf)
            return None
        return batch.previous, records

    def _gap(self, workload: str, boot_id: bytes, first: int, last: int, index: int) -> None:
        self._standing.found(
            IncidentKey(IncidentKind.GAP, workload, boot_id),
            self._state.wall_ms,
            leaf_index=index,
            span=(first, last),
            count=last - first + 1,
        )

    def _find(self, kind: IncidentKind, index: int, leaf: AgentBatch) -> None:
        self._standing.found(
            IncidentKey(kind, leaf.workload, leaf.boot_id, leaf.batch_hash),
            self._state.wall_ms,
            leaf_index=index,
            span=(leaf.first_sequence, leaf.last_sequence),
            count=leaf.last_sequence - leaf.first_sequence + 1,
        )
