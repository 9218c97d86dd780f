"""From entries of the log to the figures of a rollout's step. Pure: whoever has the log and the
agents' batches counts the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from capsign_evidence import told_calls
from capsign_evidence.leaf_kinds import Kind
from capsign_evidence.leaf_reader import Refused, Signed, SignedTwice, decode
from capsign_evidence.rollout_leaf import SideFigures, VerificationsReported
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.types.v1 import failures_pb2 as reasons

from capsign_adapter.decide.rollout_analysis import p99_ms
from capsign_adapter.decide.rollout_cohort import bucket, is_counted
from capsign_adapter.decide.rollout_reports import MOST_COUNTED, weighed
from capsign_adapter.model.rollouts import (
    LATENCY_BOUNDS_MS,
    Figures,
    Reports,
    RolloutRow,
    Side,
    Triggers,
)

BLAMED = frozenset(
    {
        reasons.REASON_KEY_NOT_ACTIVE,
        reasons.REASON_CUSTODY_TOO_WEAK,
        reasons.REASON_TOKEN_UNAVAILABLE,
        reasons.REASON_ANSWER_LATE,
        reasons.REASON_ANSWER_LOST,
        reasons.REASON_INTERNAL,
    }
)
"""Reasons that a change of the key can cause. What a caller can cause alone is none of them: else
one workload could roll a rollout back.
"""

_NAMES_KEY = frozenset({Kind.SIGNED, Kind.SIGNED_TWICE, Kind.REFUSED, Kind.VERIFICATIONS_REPORTED})
_FIELDS = Reports._fields
_NOT_DONE = frozenset({reasons.OUTCOME_UNKNOWN, reasons.OUTCOME_UNAVAILABLE})


def count(
    row: RolloutRow,
    grants: Collection[str],
    entries: Sequence[bytes],
    batches: Mapping[int, tuple[str, bytes]],
) -> Figures:
    """Returns the figures of the row's step after these entries, which follow those counted so far.

    `grants` are the names of those that may use the key. `batches` are the agents' batches by
    leaf: workload, and the batch as it was sent.
    """
    tally = _Tally(row, grants)
    first = row.figures.through_leaf
    for index, entry in enumerate(entries, first):
        if index in batches:
            tally.batch(*batches[index])
        elif entry[1] in _NAMES_KEY and tally.needle in entry:
            tally.entry(entry)
    return Figures(row.figures.first_leaf, first + len(entries), *tally.sides())


def summary(side: Side) -> SideFigures:
    """Returns the figures as a leaf has them."""
    return SideFigures(
        side.signed,
        side.refused,
        side.unanswered,
        side.verified,
        side.verify_failed,
        sum(side.latencies),
        p99_ms(side),
    )


class _Tally:
    def __init__(self, row: RolloutRow, grants: Collection[str]) -> None:
        self._row = row
        self._grants = grants
        self._latencies = [list(row.figures.before.latencies), list(row.figures.after.latencies)]
        self._counts: list[Counter[str]] = [Counter(), Counter()]
        self._reports = [
            {bucket: list(said) for bucket, said in side.reporters.items()}
            for side in (row.figures.before, row.figures.after)
        ]
        self._inside: dict[str, bool] = {}
        # tenant and key stand beside each other in every entry that names a key
        self.needle = b"".join(
            bytes((len(name),)) + name.encode() for name in (row.tenant, row.key)
        )

    def sides(self) -> tuple[Side, Side]:
        """The samples of the cohort after the change, and of those before it."""
        figures = self._row.figures
        return self._side(figures.after, True), self._side(figures.before, False)

    def _side(self, side: Side, is_after: bool) -> Side:
        counts = self._counts[is_after]
        reporters = {bucket: Reports(*said) for bucket, said in self._reports[is_after].items()}
        was, weighs = (
            _weight(each, self._row.plan.triggers) for each in (side.reporters, reporters)
        )
        return replace(
            side,
            signed=side.signed + counts["signed"],
            refused=side.refused + counts["refused"],
            unanswered=side.unanswered + weighs.unanswered - was.unanswered,
            verified=side.verified + counts["verified"] + weighs.verified - was.verified,
            verify_failed=(
                side.verify_failed + counts["verify_failed"] + weighs.failed - was.failed
            ),
            latencies=tuple(self._latencies[is_after]),
            reporters=reporters,
        )

    def entry(self, data: bytes) -> None:
        entry = decode(data)
        if isinstance(entry, VerificationsReported):
            side = self._side_of(entry.key_version, entry.verified_algorithm)
            self._add(side, "verified", entry.verified)
            self._add(side, "verify_failed", entry.failed)
        elif isinstance(entry, Signed | SignedTwice) and self._is_ours(
            entry.group.tenant, entry.group.key
        ):
            self._add(self._side_of(entry.group.key_version, entry.group.algorithm), "signed")
            if isinstance(entry, SignedTwice):
                second = entry.second
                self._add(self._side_of(second.key_version, second.algorithm), "signed")
        elif (
            isinstance(entry, Refused)
            and entry.reason in BLAMED
            and self._is_ours(entry.group.tenant, entry.group.key)
        ):
            self._add(self._is_inside(entry.group.workload), "refused")

    def batch(self, workload: str, data: bytes) -> None:
        records = evidence_pb2.AuditBatch.FromString(data).records
        if not told_calls.sound(records):
            return
        for record in records:
            if record.grant not in self._grants:
                continue
            if record.kind == evidence_pb2.AUDIT_KIND_VERIFICATIONS:
                side = self._side_of(record.key_version, record.algorithm)
                self._said(side, workload, verified=record.verified, failed=record.failed)
            elif record.kind == evidence_pb2.AUDIT_KIND_OUTCOME:
                self._outcome(workload, record)

    def _outcome(self, workload: str, record: evidence_pb2.AuditRecord) -> None:
        """What an agent says of calls that ended in this step."""
        calls = told_calls.count([record])
        if record.time_ms < self._row.stage_since_ms:
            return
        inside = self._is_inside(workload)
        if record.outcome in _NOT_DONE and record.reason in BLAMED:
            self._said(inside, workload, unanswered=calls)
        elif record.outcome == reasons.OUTCOME_DONE and record.elapsed_ms:
            found = bisect_left(LATENCY_BOUNDS_MS, record.elapsed_ms)
            self._latencies[inside][found] += calls
            bound = self._row.plan.triggers.p99_ms
            is_slow = found >= bisect_right(LATENCY_BOUNDS_MS, bound)
            self._said(inside, workload, timed=calls, slow=calls * is_slow)

    def _said(self, side: bool | None, workload: str, **counts: int) -> None:
        """Add to what a workload said of a side."""
        if side is None or not any(counts.values()):
            return
        kept = self._reports[side].setdefault(bucket(self._row.id, workload), [0] * len(_FIELDS))
        for name, more in counts.items():
            index = _FIELDS.index(name)
            kept[index] = min(kept[index] + more, MOST_COUNTED)

    def _side_of(self, version: int, algorithm: int) -> bool | None:
        """Returns True for after, False for before; None: neither, or both would be."""
        row = self._row
        after, before = (
            side.version == version and side.algorithm in {0, algorithm}
            for side in (row.after, row.before)
        )
        return after if after != before else None

    def _is_inside(self, workload: str) -> bool:
        if workload not in self._inside:
            self._inside[workload] = is_counted(self._row, workload)
        return self._inside[workload]

    def _is_ours(self, tenant: str, key: str) -> bool:
        return (tenant, key) == (self._row.tenant, self._row.key)

    def _add(self, side: bool | None, name: str, more: int = 1) -> None:
        """Add what no workload says: the adapter's own, and what people with a role report."""
        if side is not None:
            self._counts[side][name] += more


def _weight(reporters: Mapping[int, Reports], triggers: Triggers) -> Reports:
    """What all reporters weigh together. Their latencies weigh in the trigger alone."""
    unanswered = verified = failed = 0
    for said in reporters.values():
        unanswered += weighed(said.unanswered, said.unanswered, triggers.min_samples)[0]
        bad, total = weighed(said.failed, said.verified + said.failed, triggers.min_verifications)
        verified, failed = verified + total - bad, failed + bad
    return Reports(unanswered=unanswered, verified=verified, failed=failed)
