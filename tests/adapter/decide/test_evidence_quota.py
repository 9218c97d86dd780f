"""A disk fills with what one workload has written: so many bytes a day, and signatures pay for
their reports.
"""

from __future__ import annotations

import pytest
from capsign_adapter.decide.evidence_quota import (
    DAY_S,
    MIB,
    REPORT_BYTES,
    SIGNATURE_BYTES,
    EvidenceQuota,
)
from capsign_adapter.decide.rate import Buckets
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, OTHER, peer


class Clock:
    now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock():
    return Clock()


def fill(quota, who, size=64 * 1024):
    """How many bytes could be written."""
    for written in range(0, 1000 * MIB, size):
        try:
            quota.reserve(who, size)
        except FailureError as full:
            return (
                written
                if full.reason == reasons.REASON_RATE_LIMITED and full.retry_after_ms >= 1000
                else -1
            )
    return -1


def test_a_workload_has_so_much_a_day_and_another_has_its_own(clock):
    """Batches of an agent's records, a MiB each and as fast as they were taken: 2.7 TB a day."""
    quota = EvidenceQuota(Buckets(clock), 4)
    assert fill(quota, peer(APP)) == 4 * MIB
    with pytest.raises(FailureError, match="has caused the 4 MiB of evidence that it may in a day"):
        quota.reserve(peer(APP), 700)
    quota.reserve(peer(OTHER), 700)
    clock.now_ms += DAY_S * 1000 // 2
    assert fill(quota, peer(APP)) == pytest.approx(2 * MIB, rel=0.1)


def test_one_pod_leaves_its_siblings_theirs(clock):
    quota = EvidenceQuota(Buckets(clock), 4)
    quota.reserve(peer(APP, b"sibling"), 700)
    fill(quota, peer(APP, b"greedy"))
    quota.reserve(peer(APP, b"sibling"), MIB)


def test_a_signature_pays_for_its_report(clock):
    """However much is signed, the agent can always deliver what it recorded about it."""
    quota = EvidenceQuota(Buckets(clock), 1)
    for _ in range(100):
        quota.sign(peer(APP), 1000)
        quota.signed(peer(APP), 1000, 1000 * SIGNATURE_BYTES)
        quota.reserve(peer(APP), 1000 * REPORT_BYTES)


def test_signatures_are_bounded_where_that_is_asked_for(clock):
    quota = EvidenceQuota(Buckets(clock), 0, 1)
    quota.sign(peer(APP), MIB // SIGNATURE_BYTES + 1)
    with pytest.raises(FailureError, match="1 MiB of evidence"):
        quota.sign(peer(APP), 1)
    with pytest.raises(FailureError, match="1 MiB of evidence"):
        quota.reserve(peer(APP), 700)


def test_what_was_not_written_after_all_is_not_paid_for(clock):
    quota = EvidenceQuota(Buckets(clock), 1, 1)
    for _ in range(10):
        quota.reserve(peer(APP), MIB)
        quota.free(peer(APP), MIB)
        quota.sign(peer(APP), 1000)
        quota.unmade(peer(APP), 1000)
    quota.reserve(peer(APP), MIB)


def test_what_is_written_is_counted(clock):
    counted = []
    quota = EvidenceQuota(Buckets(clock), 0, 0, lambda kind, size: counted.append((kind, size)))
    quota.wrote("never", 700)
    quota.signed(peer(APP), 2, 1600)
    assert counted == [("never", 700), ("signed", 1600)]
