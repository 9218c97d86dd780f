"""Which checkpoint may be shown: one that as many witnesses have cosigned as the policy demands.

Witnesses are asked for one checkpoint at a time, the candidate, since cosignatures of different
trees do not add up. When it is published, or has waited too long, the newest one takes its place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from capsign_evidence.note import NoteError, SignatureLine, add_lines, parse_note
from capsign_evidence.tlog_policy import NONE, QuorumError, TlogPolicy
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.store.interfaces.evidence import EvidenceLog

ASK_AGAIN_MS = 1000


class Publication:
    """Safe for any thread."""

    def __init__(
        self,
        store: EvidenceLog,
        policy: TlogPolicy,
        latest: Callable[[], Checkpoint | None],
        clock_ms: Callable[[], int],
        round_ms: int,
    ) -> None:
        """`latest` gives the last durable checkpoint; `clock_ms` is monotonic; `round_ms` is how
        long a candidate waits for its cosignatures.
        """
        self._store = store
        self._policy = policy
        self._latest = latest
        self._clock_ms = clock_ms
        self._round_ms = round_ms
        self._lock = threading.Lock()
        self._candidate: Checkpoint | None = None
        self._since_ms = 0
        self._enough = False
        self._published = store.published_checkpoint()

    @property
    def demands(self) -> bool:
        """Whether the policy demands any cosignature."""
        return self._policy.quorum != NONE

    def behind_s(self, tree_size: int, now_ms: int, since_ms: int) -> float:
        """For how long there have been leaves that no published checkpoint covers, seconds; 0: all
        are. `now_ms` by the wall's clock; `since_ms` counts as long as none was published.
        """
        published = self._store.published_checkpoint()
        if published is None:
            return (now_ms - since_ms) / 1000 if tree_size else 0.0
        return max(0.0, (now_ms - published.at_ms) / 1000) if tree_size > published.tree_size else 0

    def candidate(self) -> Checkpoint | None:
        """What witnesses are to cosign now; None before the first checkpoint."""
        latest = self._latest()
        now_ms = self._clock_ms()
        with self._lock:
            held = self._candidate
            waited = now_ms - self._since_ms >= self._round_ms
            if latest is not None and (
                held is None or (latest.tree_size > held.tree_size and (self._enough or waited))
            ):
                self._candidate = held = latest
                self._since_ms, self._enough = now_ms, False
            return held

    def overtaken(self, size: int) -> None:
        """A witness has cosigned a larger tree, of another replica: this candidate is given up, and
        the next one is at least as large.
        """
        with self._lock:
            if self._candidate is not None and self._candidate.tree_size < size:
                self._enough = True

    def add(self, checkpoint: Checkpoint, lines: Sequence[SignatureLine]) -> bool:
        """Add verified cosignatures of a candidate; whether they, with those before, are enough and
        it is published, durably. Raises what the store raises.
        """
        with self._lock:
            held = self._candidate
            if held is None or (held.tree_size, held.root) != (
                checkpoint.tree_size,
                checkpoint.root,
            ):
                return False  # too late: another candidate has taken its place
            held = self._candidate = replace(held, note=add_lines(held.note, lines))
            try:
                self._policy.demand_quorum(self._policy.cosigners(parse_note(held.note)))
            except QuorumError:
                return False
        self._store.publish_checkpoint(held)
        with self._lock:
            self._enough = True
            if self._published is None or self._published.tree_size <= held.tree_size:
                self._published = held
        return True

    def last(self, signed: Checkpoint | None) -> Checkpoint | None:
        """See `sign.checkpoints.Shown`."""
        if self.demands:
            return self._store.published_checkpoint()
        return self._with_cosignatures(signed) if signed is not None else None

    def cosigned(self, checkpoint: Checkpoint) -> bool:
        """See `sign.checkpoints.Shown`. Asked of what is published: the policy may have demanded
        less when it was.
        """
        if not self.demands:
            return False
        try:
            self._policy.demand_quorum(self._policy.cosigners(parse_note(checkpoint.note)))
        except NoteError:
            return False
        return True

    def shown(self, signed: Callable[[], Checkpoint]) -> Checkpoint:
        """See `sign.checkpoints.Shown`."""
        if not self.demands:
            return self._with_cosignatures(signed())
        return self._newest(0)

    def covering(self, leaf_index: int, signed: Callable[[], Checkpoint]) -> Checkpoint:
        """See `sign.checkpoints.Shown`."""
        if not self.demands:
            return self._with_cosignatures(signed())
        return self._newest(leaf_index + 1)

    def _newest(self, size: int) -> Checkpoint:
        # other replicas publish too, and a peer must not be shown a smaller tree by this one
        published = self._store.published_checkpoint()
        if published is None or published.tree_size < size:
            raise FailureError(
                failures_pb2.REASON_NOT_WITNESSED,
                "Too few witnesses have cosigned a checkpoint that covers this yet.",
                retry_after_ms=ASK_AGAIN_MS,
            )
        return published

    def _with_cosignatures(self, signed: Checkpoint) -> Checkpoint:
        published = self._published
        if published is not None and (published.tree_size, published.root) == (
            signed.tree_size,
            signed.root,
        ):
            return published
        return signed
