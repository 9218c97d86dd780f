"""What a workload and a tenant may have computed for them, other than signatures, each second.

Signatures have their grant's rate and take turns (`sign/fair_scheduler.py`). All else that somebody
can ask for costs as well: verifying a handle that is none, minting handles, deriving keys,
refusing, looking things up. It is charged here by its cost, before it is done. Pods draw on their
workload's budget and workloads on their tenant's, and none of them can use up what it shares.
"""

from __future__ import annotations

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.rate import Buckets

SECONDS_AT_ONCE = 5
"""After a pause, as much as in so many seconds: a Deployment whose pods all start at the same
time.
"""

WORK = "*work"
"""Name of a bucket; no grant can be called so."""

A_TENANT = 2
"""A tenant may have so many times what one of its workloads may."""


class Budget:
    """Safe to share between threads. `rates` are this one's own: they count microseconds."""

    def __init__(self, policy: Policy, rates: Buckets, us_per_second: int) -> None:
        """`us_per_second` is what one workload may use of a CPU each second; 0 is no limit."""
        self._policy = policy
        self._rates = rates
        self._workload = us_per_second
        self._tenant = us_per_second * A_TENANT

    def charge(self, peer: Peer, cost_us: int) -> None:
        """Before the work. Raises UsedUpError, and then nothing was charged.

        Who has a role is not charged: people are few, and a responder must get through.
        """
        if self._policy.roles_of(peer.spiffe_id):
            return
        tenant, workload = self._policy.tenant_of(peer.spiffe_id), peer.spiffe_id
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
    """RATE_LIMITED, because a budget is used up."""

    def __init__(self, whose: str, wait_ms: int) -> None:
        sentence = (
            f"What this {whose} may have computed beside signatures is used up for the moment."
        )
        super().__init__(failures_pb2.REASON_RATE_LIMITED, sentence, retry_after_ms=max(wait_ms, 1))
