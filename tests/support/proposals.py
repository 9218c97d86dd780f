"""An act that two people may do, for tests: it moves a counter of the test's own and revokes a
handle, so that what it does shows in the store.
"""

from __future__ import annotations

from capsign_adapter.model.proposals import ProposalRow
from capsign_adapter.store import registry
from capsign_adapter.store.executors import Executor, Executors
from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.adapter.v1 import approvals_pb2 as pb
from capsign_wire.intents import new_intent_id
from support.drafts import NOW

LIFT = pb.PROPOSAL_ACT_REVOCATION_LIFT
DESTROY = pb.PROPOSAL_ACT_KEY_DESTROY
POLICY = pb.PROPOSAL_ACT_POLICY
HOUR = 3_600_000
PROPOSER = "spiffe://capsign.test/people/olga"


class Deed:
    """What a proposal stands on is `version`; what it does is one more handle revoked."""

    def __init__(self) -> None:
        self.version = 1
        self.failure: Exception | None = None
        """Raised where the deed would be done, if there is one."""
        self.followed: list[ProposalRow] = []
        """Those for which `executed` was called."""

    def executors(self, *acts: int) -> Executors:
        """This deed for each of these acts; for all three, if none is named."""
        executor = Executor(
            words=lambda row: [f"{row.target} is done."],
            state=lambda tx, row: b"%d" % self.version,
            execute=self._execute,
            executed=self.followed.append,
        )
        return Executors(dict.fromkeys(acts or (POLICY, DESTROY, LIFT), executor))

    def _execute(self, tx, head, row: ProposalRow, now_ms: int) -> None:
        if self.failure is not None:
            raise self.failure
        kind = admin_pb2.REVOCATION_KIND_HANDLE
        registry.revoke(tx, head, kind, row.id.hex(), lambda epoch: b"deed %d" % epoch, now_ms)


def done(store) -> int:
    """How often the deed was done."""
    return len(store.revocations()[1])


def draft(target: str = "shop/orders", **changes) -> ProposalRow:
    """A proposal of LIFT by PROPOSER that was made at NOW and can be approved for an hour."""
    fields = {
        "id": new_intent_id(NOW),
        "act": LIFT,
        "target": target,
        "digest": b"",
        "payload": b"payload",
        "proposer": PROPOSER,
        "created_ms": NOW,
        "expires_ms": NOW + HOUR,
        "waits_ms": 0,
    }
    return ProposalRow(**(fields | changes))


def entry(row: ProposalRow, event: object, epoch: int) -> bytes:
    """A leaf that tells which move it is of."""
    return f"{event or 'made'} at {epoch}: ".encode() + row.id
