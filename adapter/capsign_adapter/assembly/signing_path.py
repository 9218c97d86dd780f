"""The signing path: what decides, what is charged, and what runs batches."""

from __future__ import annotations

from capsign_wire.telemetry import Metrics

from capsign_adapter.assembly.state import State
from capsign_adapter.config import Config
from capsign_adapter.decide.budget import Budget
from capsign_adapter.decide.evidence_quota import EvidenceQuota
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.sign.admit import Admission
from capsign_adapter.sign.charge import Charges
from capsign_adapter.sign.clock import monotonic_ms
from capsign_adapter.sign.commit import Commits
from capsign_adapter.sign.fair_scheduler import FairScheduler
from capsign_adapter.sign.key_uses import KeyUseCounter
from capsign_adapter.sign.pipeline import Pipeline
from capsign_adapter.sign.public_keys import PublicKeys
from capsign_adapter.sign.resolve import Resolutions
from capsign_adapter.sign.scheduled_token import BatchScheduler

COMPUTING_AT_ONCE = 2
"""Batches that are worked on at the same time: one on Python's lock, one in OpenSSL, which lets go
of it.
"""


class SigningPath:
    """Of one replica."""

    def __init__(self, config: Config, state: State, metrics: Metrics) -> None:
        control = config.control
        self.scheduler = FairScheduler(COMPUTING_AT_ONCE)
        self.budget = Budget(
            state.snapshots.policy, Buckets(monotonic_ms), control.work_ms_per_second * 1000
        )
        written = metrics.counter("capsign.evidence.bytes")
        self.evidence_quota = EvidenceQuota(
            Buckets(monotonic_ms),
            control.other_evidence_mib_per_day,
            control.evidence_mib_per_day,
            lambda kind, size: written.add(kind, by=size),
        )
        admission = Admission(state.handles, state.keyring, state.commitments, self.budget)
        self.uses = KeyUseCounter()
        charges = Charges(
            Buckets(monotonic_ms), self.evidence_quota, control.refusals_per_second, self.uses
        )
        batches = BatchScheduler(state.snapshots.policy, self.scheduler, state.scheduled_token)
        commits = Commits(state.store, charges, state.checkpoints.demand_unbroken)
        self.pipeline = Pipeline(
            admission, state.decisions, charges, state.snapshots, commits, batches
        )
        self.resolutions = Resolutions(admission, charges, state.yielding_store)
        self.public_keys = PublicKeys(
            admission, state.keyring, state.snapshots, state.key_sets, state.key_readers
        )
