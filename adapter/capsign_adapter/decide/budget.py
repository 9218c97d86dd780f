"""CPU budgets: how much may be computed each second for a workload and for a tenant, other than
signatures.

Signatures have the rate of their grant and turns (`sign/fair_scheduler.py`). Everything else costs
as well: verifying invalid handles, minting handles, deriving keys, refusing, look-ups. It is
charged here by its cost before it is done. Pods draw on the budget of their workload and workloads
on that of their tenant; none of them can use up what it shares.
"""

from __future__ import annotations

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import PolicyNow
from capsign_adapter.decide.rate import Buckets

SECONDS_AT_ONCE = 5
"""Burst: as much at once as the budget gives in this many seconds. Needed when all pods of a
Deployment start at the same time.
"""

WORK = "*work"
"""Name of a bucket; no grant can have it."""

A_TENANT = 2
"""Budget of a tenant, as a multiple of that of one workload."""


class Budget:
    """Safe for any thread. `rates` must not be shared with others: these buckets count
    microseconds.
    """

    def __init__(self, policy: PolicyNow, rates: Buckets, us_per_second: int) -> None:
        """`us_per_second`: microseconds of a CPU that one workload may use each second; 0 is no
        limit.
        """
        self._policy = policy
        self._rates = rates
        self._workload = us_per_second
        self._tenant = us_per_second * A_TENANT

    def charge(self, peer: Peer, cost_us: int) -> None:
        """Charge work before it is done. Raises UsedUpError, and charges nothing then. What costs
        nothing is never refused.

        Identities with a role are not charged: they are few, and a responder must get through.
        """
        policy = self._policy()
        if not cost_us or policy.roles_of(peer.spiffe_id):
            return
        tenant, workload = policy.tenant_of(peer.spiffe_id), peer.spiffe_id
        granted, wait_ms = self._rates.spend(
            tenant, WORK, self._tenant, self._tenant * SECONDS_AT_ONCE, cost_us, workload
        )
        if not granted:
            raise UsedUpError("tenant", wait_ms)
        granted, wait_ms = self._rates.spend(
            workload, WORK, self._workload, self._workload * SECONDS_AT_ONCE, cost_us, peer.key_hash
        )
        if not granted:
            self._rates.give_back(tenant, WORK, cost_us, workload)
            raise UsedUpError("workload", wait_ms)


class UsedUpError(FailureError):
    """FailureError RATE_LIMITED for an exhausted budget."""

    def __init__(self, whose: str, wait_ms: int) -> None:
        sentence = (
            f"What this {whose} may have computed beside signatures is used up for the moment."
        )
        super().__init__(failures_pb2.REASON_RATE_LIMITED, sentence, retry_after_ms=max(wait_ms, 1))
