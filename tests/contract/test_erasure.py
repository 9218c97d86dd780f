"""A tenant is erased: before, a message is found in the log; after, nobody can find it, on each
store, over real TLS, with two replicas.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, closing

import grpc
import pytest
from capsign_adapter.keys import labels
from capsign_adapter.keys.commitment import CommitmentKeys
from capsign_adapter.keys.provision import InventoryError
from capsign_adapter.provisioning import provision_all
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.token.interface import KeyMissingError
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, RefusedUnbound, Signed, decode
from capsign_evidence.merkle import Frontier, leaf_hash
from capsign_wire.adapter.v1 import tenants_pb2 as pb
from capsign_wire.adapter.v1 import tenants_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APPROVER, OPERATOR, POLICY, RESPONDER, AdapterRig
from support.key_calls import People, eventually
from support.replica import RunningReplica

SOON = POLICY.replace("tls:", "approvals: {destroy_wait: 1s}\ntls:")
MESSAGE = b"pay 10 to mallory"
PEPPER = labels.pepper("demo")


@pytest.fixture
def fleet(tmp_path, place):
    """Two replicas on one store and one token."""
    with ExitStack() as ends:
        rig = AdapterRig(tmp_path / "first", SOON, place.url, place.password_file)
        rigs = [rig, rig.beside()]
        replicas = [RunningReplica(tmp_path, rigs[0])]
        ends.callback(replicas[0].stop)
        replicas.append(RunningReplica(tmp_path, rigs[1], authority=replicas[0].authority))
        ends.callback(replicas[1].stop)
        yield replicas


def called(replica, who: str, method: str, request):
    with replica.as_(who) as channel:
        try:
            return getattr(tenants_pb2_grpc.TenantServiceStub(channel), method)(request, timeout=20)
        except grpc.RpcError as error:
            failure = FailureError.from_rpc(error)
            if failure is None:
                raise
            raise failure from None


def commitments(replica) -> set[bytes]:
    """Those of the message, as a responder is told them."""
    request = pb.GetCommitmentsRequest(tenant="demo", sha256=hashlib.sha256(MESSAGE).digest())
    answer = called(replica, RESPONDER, "GetCommitments", request)
    return {one.commitment for one in answer.commitments}


def proposed(replica):
    return called(replica, OPERATOR, "EraseTenant", pb.EraseTenantRequest(tenant="demo"))


def refused(call, *arguments) -> int:
    with pytest.raises(FailureError) as caught:
        call(*arguments)
    return caught.value.reason


def deactivate(replica) -> None:
    with replica.as_(OPERATOR) as channel:
        for key in ("orders", "release"):
            People(channel, key=key).move("deactivate", 1)


def erase(replica) -> None:
    """Two people, and what follows in the token."""
    proposal = proposed(replica)
    with replica.as_(APPROVER) as channel:
        People(channel).approve(proposal)
    listed = pb.ListErasuresRequest()
    assert eventually(
        lambda: any(
            one.HasField("gone_at")
            for one in called(replica, OPERATOR, "ListErasures", listed).erasures
        )
    )


def acts(replica) -> list[tuple[Act, str]]:
    entries = [decode(entry) for entry in replica.rig.entries()]
    return [(each.act, each.target) for each in entries if isinstance(each, Admin)]


def test_before_a_message_is_found_and_after_nobody_finds_it(fleet):
    first, second = fleet
    rig = first.rig
    handle = rig.handle()
    rig.sign(MESSAGE, handle=handle)
    (signed,) = [one for one in map(decode, rig.entries()) if isinstance(one, Signed)]
    assert signed.commitment in commitments(first)
    held = CommitmentKeys(rig.token, lambda: 0)
    held.for_tenant("demo")

    deactivate(first)
    erase(second)

    for replica in fleet:
        assert refused(commitments, replica) == reasons.REASON_TENANT_ERASED
    # neither the token that was asked before nor one that is opened anew has the pepper or a key
    for token in (rig.token, second.rig.token, rig.token.beside()):
        with pytest.raises(KeyMissingError):
            token.hmac(PEPPER, b"capsign1 commitment")
        left = [label for label in token.labels() if label.startswith("capsign/demo/")]
        assert left == ["capsign/demo/orders/1/spent", "capsign/demo/release/1/spent"]
    told = acts(first)
    assert told[-1] == (Act.PEPPER_GONE, "demo") or (Act.PEPPER_GONE, "demo") in told
    assert (Act.TENANT_ERASED, "demo") in told
    assert (Act.KEY_DESTROYED, "demo/orders/1") in told
    # the log is as it was: its root is that of its entries, and the entry of the message is in it
    control = rig.store.control()
    entries = rig.store.entries(0, control.tree_size)
    assert signed.encode() in entries
    tree = Frontier(0, ()).append([leaf_hash(entry) for entry in entries])[0]
    assert tree.size == control.tree_size


def test_nothing_is_signed_or_made_for_an_erased_tenant(fleet):
    first, second = fleet
    rig = first.rig
    handle, intent = rig.handle(), new_intent_id()
    deactivate(first)
    erase(first)
    rig.snapshots.refresh()
    (item,) = rig.sign(MESSAGE, handle=handle, intents=[intent])
    assert item.failure.reason == reasons.REASON_TENANT_ERASED
    # no commitment can be made, so the refusal is bound to none
    last = decode(rig.entries()[-1])
    assert isinstance(last, RefusedUnbound)
    assert (last.intent_id, last.reason) == (intent, reasons.REASON_TENANT_ERASED)
    with second.as_(OPERATOR) as channel:
        assert refused(People(channel).create) == reasons.REASON_TENANT_ERASED
    assert refused(proposed, first) == reasons.REASON_TENANT_ERASED
    # neither a policy that names it yet nor another provisioning makes it anew
    assert provision_all(rig.policy, rig.token, rig.store, now_ms()) == []
    second.replica.listeners.policies.look()
    assert PEPPER not in rig.token.labels()


def test_a_tenant_whose_keys_may_sign_is_not_erased(fleet):
    first, _ = fleet
    assert refused(proposed, first) == reasons.REASON_TENANT_IN_USE
    deactivate(first)
    proposal = proposed(first)
    assert proposed(first).proposal_id == proposal.proposal_id, "the same wish is one proposal"
    with first.as_(OPERATOR) as channel:
        people = People(channel)
        assert refused(people.approve, proposal) == reasons.REASON_ROLE_MISSING
        people.make(newest=1)
    with first.as_(APPROVER) as channel:
        assert refused(People(channel).approve, proposal) == reasons.REASON_PROPOSAL_CHANGED
    assert PEPPER in first.rig.token.labels()


def test_a_copy_of_the_database_does_not_bring_it_back(fleet, copied):
    """Yesterday's database and today's token: the pepper that it counts on is nowhere, so that
    neither a replica starts on it nor is anything made for the tenant's name.
    """
    first, _ = fleet
    yesterday = copied()
    deactivate(first)
    erase(first)
    before = first.rig.token.labels()
    first.rig.url = yesterday.url
    restored = first.rig.beside()
    with pytest.raises(InventoryError, match="capsign/demo/pepper is missing"):
        RunningReplica(first.directory, restored, authority=first.authority)
    with pytest.raises(InventoryError, match="no pepper for the tenant demo"):
        provision_all(restored.policy, restored.token, restored.store, now_ms())
    assert first.rig.token.labels() == before
    restored.close()


def test_nor_does_a_database_of_before_the_tenant(tmp_path, place, copied):
    """It knows of no tenant of that name; the token knows that there was one."""
    empty = copied()
    replica = RunningReplica(
        tmp_path, AdapterRig(tmp_path / "first", SOON, place.url, place.password_file)
    )
    try:
        deactivate(replica)
        erase(replica)
        rig = replica.rig
        left = [f"capsign/demo/{key}/1/spent" for key in ("orders", "release")]
        assert eventually(lambda: rig.token.labels()[: len(left)] == left)
        before = rig.token.labels()
        by_name = pytest.raises(InventoryError, match="a tenant of that name was erased")
        with closing(empty.open()) as store, by_name:
            provision_all(rig.policy, rig.token, store, now_ms())
        assert rig.token.labels() == before
    finally:
        replica.stop()


def test_a_pepper_that_comes_back_with_a_copy_of_the_token_is_destroyed_again(fleet):
    first, second = fleet
    deactivate(first)
    erase(first)
    first.rig.token.generate_secret(PEPPER)
    # as a replica does that starts and has not seen it gone
    first.stop()
    started = RunningReplica(first.directory, first.rig.beside(), authority=first.authority)
    try:
        assert eventually(lambda: PEPPER not in second.rig.token.labels())
    finally:
        started.stop()
    assert acts(second).count((Act.PEPPER_GONE, "demo")) == 1, "it is told once"
