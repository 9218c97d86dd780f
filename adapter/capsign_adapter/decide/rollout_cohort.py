"""Which workloads a canary has: a stable hash of rollout and workload, so that every replica and
every auditor finds the same ones, and who is in 10 % is in 50 %.
"""

from __future__ import annotations

import hashlib
from typing import assert_never

from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.model.rollouts import BUCKETS, RolloutRow


def bucket(rollout_id: bytes, spiffe_id: str) -> int:
    """Returns a bucket, 0 to 9999: the first 8 bytes, big-endian, of SHA-256 over both, each with
    its length before it as 16 bits, modulo 10,000.
    """
    hashed = hashlib.sha256()
    for part in (rollout_id, spiffe_id.encode()):
        hashed.update(len(part).to_bytes(2, "big") + part)
    return int.from_bytes(hashed.digest()[:8], "big") % BUCKETS


def percent_of(row: RolloutRow) -> int:
    """Returns the percentage of all workloads that signs with what is new, first of all."""
    stage = RolloutStage
    match row.stage:
        case stage.PUBLISH | stage.PROPAGATE:
            return 0
        case stage.CANARY:
            return row.plan.canary[row.step].percent
        case stage.DUAL_SIGN:
            return row.plan.canary[-1].percent
        case stage.PROMOTE | stage.RETIRE | stage.DONE:
            return 100
        case stage.ABORTED | stage.ROLLED_BACK | stage.OVERTAKEN:
            return 0
        case unknown:
            assert_never(unknown)


def is_in(row: RolloutRow, spiffe_id: str) -> bool:
    """Whether this workload signs with what is new now, first of all."""
    return bucket(row.id, spiffe_id) < percent_of(row) * (BUCKETS // 100)


def is_counted(row: RolloutRow, spiffe_id: str) -> bool:
    """Whether what this workload meets tells of what is new: while all get both signatures, all
    do.
    """
    return row.stage is RolloutStage.DUAL_SIGN or is_in(row, spiffe_id)
