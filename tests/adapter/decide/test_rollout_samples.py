"""What is counted of a rollout's step, and what is not."""

from __future__ import annotations

from dataclasses import replace

from capsign_adapter.decide.rollout_cohort import is_in
from capsign_adapter.decide.rollout_samples import BLAMED, count
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.model.rollouts import CanaryStep, Figures, SignsWith
from capsign_evidence import leaf
from capsign_evidence.rollout_leaf import VerificationsReported
from capsign_evidence.signing_leaf import SigningLeaf
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.failures import REASONS
from capsign_wire.types.v1 import failures_pb2 as reasons
from hypothesis import given
from hypothesis import strategies as st
from support.rollouts import ED25519, ES256, ML_DSA, NOW, OLGA, PLAN, rollout

FLEET = [f"spiffe://capsign.test/ns/n{number}/sa/app" for number in range(64)]
ROW = rollout(
    RolloutStage.CANARY,
    plan=replace(PLAN, canary=(CanaryStep(50, 60_000),)),
    figures=Figures(7, 7),
)
INSIDE = next(workload for workload in FLEET if is_in(ROW, workload))
OUTSIDE = next(workload for workload in FLEET if not is_in(ROW, workload))
GRANTS = {"orders-jwt"}


def group(workload: str = INSIDE, **changes: object) -> SigningLeaf:
    made = SigningLeaf(
        workload=workload,
        cert_key_hash=bytes(32),
        tenant="demo",
        key="orders",
        key_version=2,
        purpose="jwt",
        algorithm=ED25519,
        custody=1,
        context_digest=bytes(32),
        grant="orders-jwt",
        handle_serial=bytes(16),
        policy_digest=bytes(32),
    )
    return replace(made, **changes)


def signed(**changes: object) -> bytes:
    return group(**changes).prepare().signed(NOW, bytes(16), bytes(32), bytes(32))


def refused(reason: int, workload: str = INSIDE) -> bytes:
    return group(workload).prepare().refused(NOW, bytes(16), b"", reason)


def batch(*records: dict) -> bytes:
    made = pb.AuditBatch(boot_id=bytes(16))
    for record in records:
        made.records.add(**{"grant": "orders-jwt", "time_ms": NOW, **record})
    return made.SerializeToString()


def counted(*entries: bytes, row=ROW, batches=None) -> Figures:
    return count(row, GRANTS, entries, batches or {})


def reported(records: bytes, workload: str = INSIDE) -> Figures:
    entry = leaf.agent_batch(NOW, bytes(32), workload, bytes(16), 1, 1, bytes(32), closes=False)
    return counted(entry, batches={7: (workload, records)})


def test_signatures_are_counted_by_what_they_were_made_with():
    figures = counted(
        signed(), signed(), signed(key_version=1), signed(key_version=3), signed(key="payments")
    )
    assert (figures.after.signed, figures.before.signed) == (2, 1)
    assert (figures.first_leaf, figures.through_leaf) == (7, 12)


def test_a_change_of_algorithm_is_told_by_the_algorithm():
    row = replace(ROW, before=SignsWith(2, ES256), after=SignsWith(2, ML_DSA))
    entries = [signed(algorithm=algorithm) for algorithm in (ES256, ML_DSA, ML_DSA, ED25519)]
    figures = counted(*entries, row=row)
    assert (figures.after.signed, figures.before.signed) == (2, 1)


def test_refusals_count_where_a_change_of_the_key_can_cause_them():
    for reason in REASONS:
        figures = counted(refused(reason), refused(reason, OUTSIDE))
        assert figures.after.refused == figures.before.refused == int(reason in BLAMED)


def test_no_caller_can_make_a_refusal_that_counts():
    """What a workload can bring about alone: an old or foreign handle, a wrong input, too much."""
    theirs = {
        "HANDLE_EXPIRED",
        "HANDLE_FORGED",
        "HANDLE_STOLEN",
        "ALGORITHM_NOT_ALLOWED",
        "CONTEXT_NOT_ALLOWED",
        "INPUT_MALFORMED",
        "INPUT_TOO_LARGE",
        "INTENT_CONFLICT",
        "RATE_LIMITED",
        "USES_EXHAUSTED",
    }
    assert not theirs & {REASONS[reason].name for reason in BLAMED}


def test_calls_without_an_answer_and_their_time_are_what_agents_say():
    late = {
        "kind": pb.AUDIT_KIND_OUTCOME,
        "outcome": reasons.OUTCOME_UNKNOWN,
        "reason": reasons.REASON_ANSWER_LATE,
    }
    done = {"kind": pb.AUDIT_KIND_OUTCOME, "outcome": reasons.OUTCOME_DONE, "elapsed_ms": 12}
    records = batch(late, done, done, {**late, "grant": "other"}, {**late, "time_ms": NOW - 1})
    inside, outside = reported(records), reported(records, OUTSIDE)
    assert inside.after.unanswered == outside.before.unanswered == 1
    assert sum(inside.after.latencies) == inside.after.latencies[7] == 2
    assert inside.before.unanswered == outside.after.unanswered == 0


def test_verifications_are_counted_by_version_whoever_verified():
    record = {"kind": pb.AUDIT_KIND_VERIFICATIONS, "algorithm": ED25519, "verified": 5, "failed": 2}
    figures = reported(batch({**record, "key_version": 2}, {**record, "key_version": 1}), OUTSIDE)
    for side in (figures.after, figures.before):
        assert (side.verified, side.verify_failed) == (5, 2)
    entry = VerificationsReported(NOW, bytes(32), OLGA, "demo", "orders", 2, ED25519, 8, 1)
    figures = counted(entry.encode(), replace(entry, key="other").encode())
    assert (figures.after.verified, figures.after.verify_failed) == (8, 1)


@given(st.lists(st.sampled_from(["new", "old", "no", "yes"])), st.integers(0, 40))
def test_parts_of_a_step_add_up_to_the_whole(kinds, cut):
    """Replicas count a part each, wherever the others stopped."""
    entry = VerificationsReported(NOW, bytes(32), OLGA, "demo", "orders", 2, ED25519, 3, 1)
    made = {
        "new": signed(),
        "old": signed(key_version=1),
        "no": refused(reasons.REASON_INTERNAL),
        "yes": entry.encode(),
    }
    entries = [made[kind] for kind in kinds]
    first = counted(*entries[:cut])
    assert counted(*entries[cut:], row=replace(ROW, figures=first)) == counted(*entries)
