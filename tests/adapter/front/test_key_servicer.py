"""KeyService over real TLS: who may, what is refused, and what callers hear and verifiers see."""

from __future__ import annotations

import grpc
import pytest
from capsign_adapter.sign.refused_moves import AT_ONCE
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, decode
from capsign_wire.adapter.v1 import (
    capability_pb2,
    capability_pb2_grpc,
    keys_pb2_grpc,
    signing_pb2_grpc,
)
from capsign_wire.adapter.v1 import keys_pb2 as pb
from capsign_wire.adapter.v1 import signing_pb2 as wire
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import (
    APP,
    APPROVER,
    AUDITOR,
    OPERATOR,
    POLICY,
    RESPONDER,
    STRANGER,
    AdapterRig,
)
from support.key_calls import People
from support.replica import RunningReplica

NAME = pb.KeyVersionName(tenant="demo", key="orders", version=1)
CALLS = {
    "GetKey": pb.GetKeyRequest(tenant="demo", key="orders"),
    "CreateKey": pb.CreateKeyRequest(tenant="demo", key="orders"),
    "CreateKeyVersion": pb.CreateKeyVersionRequest(tenant="demo", key="orders", newest=1),
    "ChangeKeyVersion": pb.ChangeKeyVersionRequest(name=NAME, change=pb.KEY_CHANGE_DEACTIVATE),
    "WithdrawKeyVersion": pb.WithdrawKeyVersionRequest(
        name=NAME, withdrawal=pb.KEY_WITHDRAWAL_SUSPEND
    ),
    "DestroyKeyVersion": pb.DestroyKeyVersionRequest(name=NAME),
    "GetKeySet": pb.GetKeySetRequest(grant="thrice"),
}
MAY = {
    "GetKey": {OPERATOR, RESPONDER, AUDITOR, APPROVER},
    "GetKeySet": {OPERATOR, RESPONDER, AUDITOR, APPROVER},
    "WithdrawKeyVersion": {OPERATOR, RESPONDER},
}
"""Who may call what; the rest is for operators."""


def reason_of(replica, who: str, method: str) -> int:
    with replica.as_(who) as channel, pytest.raises(grpc.RpcError) as caught:
        getattr(keys_pb2_grpc.KeyServiceStub(channel), method)(CALLS[method], timeout=10)
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None
    return failure.reason


@pytest.fixture
def operator(replica):
    with replica.as_(OPERATOR) as channel:
        yield People(channel)


@pytest.fixture
def app(replica):
    with replica.as_(APP) as channel:
        yield App(channel)


class App:
    """What an agent does, by hand."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._signing = signing_pb2_grpc.SigningServiceStub(channel)
        capability = capability_pb2_grpc.CapabilityServiceStub(channel)
        issued = capability.IssueHandles(capability_pb2.IssueHandlesRequest(), timeout=10).handles
        self._token = next(each.token for each in issued if each.grant == "orders-jwt")
        self._context = signing_pb2.ContextSuffix(role="issuer")

    def sign(self) -> tuple[signing_pb2.SignedBy | None, int]:
        """Under what one call was signed, and the reason if it was not."""
        group = wire.SignGroup(
            algorithm=algorithms_pb2.ALGORITHM_ED25519,
            context=self._context,
            items=[wire.SignItem(intent_id=new_intent_id(), input=b"m")],
        )
        request = wire.SignRequest(batch_id=1, handles=[self._token], groups=[group])
        (answer,) = self._signing.Sign(iter([request]), timeout=10)
        (group,) = answer.groups
        return next(iter(group.signed_by), None), group.items[0].failure.reason

    def verifiers_see(self) -> dict[int, str]:
        """The kid by version."""
        request = wire.GetPublicKeysRequest(
            handle=self._token, algorithm=algorithms_pb2.ALGORITHM_ED25519, context=self._context
        )
        try:
            answer = self._signing.GetPublicKeys(request, timeout=10)
        except grpc.RpcError as error:
            failure = FailureError.from_rpc(error)
            if failure is None:
                raise
            raise failure from None
        return {key.version: key.kid for key in answer.keys}


def refused(call, *arguments) -> FailureError:
    with pytest.raises(FailureError) as caught:
        call(*arguments)
    return caught.value


def test_every_method_is_tried():
    (service,) = pb.DESCRIPTOR.services_by_name.values()
    assert {method.name for method in service.methods} == set(CALLS)


@pytest.mark.parametrize("method", CALLS)
def test_who_has_no_role_learns_nothing(replica, method):
    for who in {APP, OPERATOR, RESPONDER, AUDITOR, APPROVER} - MAY.get(method, {OPERATOR}):
        assert reason_of(replica, who, method) == reasons.REASON_ROLE_MISSING, who
    assert reason_of(replica, STRANGER, method) in {
        reasons.REASON_ROLE_MISSING,
        reasons.REASON_IDENTITY_UNKNOWN,
    }


def test_a_rotation_by_hand(operator, app):
    """Published, then activated under the epoch that was reserved; the old one verifies on."""
    before, _ = app.sign()
    made = operator.make().version
    assert (made.version, made.activation_epoch, made.HasField("published_at")) == (2, 0, False)
    published = operator.move("publish", 2).version
    assert (published.activation_epoch, published.HasField("published_at")) == (2, True)
    assert app.sign()[0] == before
    seen = app.verifiers_see()
    assert list(seen) == [1, 2], "what signs comes first"
    active = operator.move("activate", 2).version
    assert active.activation_epoch == 2
    after, _ = app.sign()
    assert (after.version, after.kid) == (2, seen[2]), "verifiers knew the key before it signed"
    operator.move("deactivate", 1)
    assert app.sign()[0] == after
    assert app.verifiers_see() == {1: before.kid, 2: after.kid}


def test_who_signs_with_a_suspended_version_hears_who_may_resume_it(operator, app):
    before, _ = app.sign()
    operator.move("suspend", 1)
    assert app.sign() == (None, reasons.REASON_KEY_SUSPENDED)
    failure = refused(app.verifiers_see)
    assert failure.reason == reasons.REASON_KEY_SUSPENDED
    assert "demo/orders is suspended" in failure.detail
    assert "operator" in failure.row.advice
    operator.move("resume", 1)
    assert app.sign()[0] == before
    assert app.verifiers_see() == {1: before.kid}


def test_what_is_compromised_verifies_no_more(operator, app):
    operator.make()
    operator.move("activate", 2)
    assert set(app.verifiers_see()) == {1, 2}
    operator.move("compromise", 1)
    assert set(app.verifiers_see()) == {2}
    operator.move("compromise", 2)
    assert app.sign() == (None, reasons.REASON_KEY_NOT_ACTIVE)


def test_no_subkey_outlives_a_withdrawal(replica, operator, app):
    """What was derived is dropped on the replica that is asked before it answers."""
    app.sign()
    keyring = replica.replica.state.keyring
    assert len(keyring) > 0
    operator.move("suspend", 1)
    assert len(keyring) == 0


def test_a_key_is_created_once_and_only_if_policy_has_it(replica, operator):
    failure = refused(operator.create)
    assert failure.reason == reasons.REASON_ILLEGAL_TRANSITION
    assert "capsign keys rotate" in failure.detail
    with replica.as_(OPERATOR) as channel:
        failure = refused(People(channel, key="payments").create)
    assert failure.reason == reasons.REASON_NOT_FOUND
    assert refused(operator.make, 7).reason == reasons.REASON_ILLEGAL_TRANSITION


def test_a_further_version_says_after_which_one(replica):
    """0 would be the first one, which signs at once."""
    request = pb.CreateKeyVersionRequest(tenant="demo", key="orders")
    with replica.as_(OPERATOR) as channel, pytest.raises(grpc.RpcError) as caught:
        keys_pb2_grpc.KeyServiceStub(channel).CreateKeyVersion(request, timeout=10)
    failure = FailureError.from_rpc(caught.value)
    assert (failure.reason, failure.field) == (reasons.REASON_INPUT_MALFORMED, "newest")


def test_what_is_not_there_is_not_found(operator):
    assert refused(operator.move, "suspend", 7).reason == reasons.REASON_NOT_FOUND
    assert refused(operator.propose_destruction, 7).reason == reasons.REASON_NOT_FOUND


GROWN = POLICY.replace("tenants: [{name: demo}]", "tenants: [{name: demo}, {name: shop}]").replace(
    "keys:\n",
    "keys:\n  - {tenant: shop, name: carts, kind: derived, algorithms: [ES256]}\n",
    1,
)
"""A policy with a tenant and a key more."""


def test_what_a_new_policy_names_is_created_without_a_restart(replica, operator):
    """A new tenant has no pepper in the token either: it is made with its first key."""
    with replica.as_(OPERATOR) as channel:
        carts = People(channel, "shop", "carts")
        assert refused(carts.create).reason == reasons.REASON_NOT_FOUND
        replica.rig.apply(GROWN)
        made = carts.create().version
        assert (made.version, made.activation_epoch) == (1, 1)
        assert made.state == signing_pb2.KEY_STATE_ACTIVE
        assert refused(carts.create).reason == reasons.REASON_ILLEGAL_TRANSITION
    assert "capsign/shop/pepper" in replica.rig.token.labels()


def test_the_next_version_has_the_algorithms_that_policy_gives_the_key_now(tmp_path):
    before = POLICY.replace(
        "algorithms: [Ed25519, ES256, HS256, ML-DSA-65]", "algorithms: [Ed25519, ES256, HS256]"
    )
    replica = RunningReplica(tmp_path, AdapterRig(tmp_path / "store", before))
    try:
        with replica.as_(OPERATOR) as channel:
            operator = People(channel)
            assert algorithms_pb2.ALGORITHM_ML_DSA_65 not in operator.version(1).algorithms
            replica.rig.apply(POLICY)
            assert algorithms_pb2.ALGORITHM_ML_DSA_65 in operator.show().policy_algorithms
            made = operator.make().version
        assert set(made.algorithms) - set(first_algorithms(replica)) == {
            algorithms_pb2.ALGORITHM_ML_DSA_65
        }
    finally:
        replica.stop()


def first_algorithms(replica) -> tuple[int, ...]:
    """What the first version was made for, as the store has it."""
    rows = replica.rig.store.key_versions()
    return next(row.algorithms for row in rows if (row.key, row.version) == ("orders", 1))


def test_show_tells_who_would_stop_signing(operator):
    shown = operator.show()
    assert (shown.in_policy, shown.workloads) == (True, 2)
    assert list(shown.grants) == ["orders-jwt", "others", "slow", "thrice"]
    assert len(shown.policy_algorithms) == 4


def test_refusals_are_recorded_as_long_as_the_rate_lasts(replica, operator):
    """Who asks for ever what the table does not have fills no log."""
    for _ in range(AT_ONCE + 20):
        assert refused(operator.move, "resume", 1).reason == reasons.REASON_ILLEGAL_TRANSITION
    entries = [decode(entry) for entry in replica.rig.entries()]
    recorded = [
        (each.actor, each.target)
        for each in entries
        if isinstance(each, Admin) and each.act is Act.KEY_MOVE_REFUSED
    ]
    assert set(recorded) == {(OPERATOR, "demo/orders/1")}
    assert AT_ONCE <= len(recorded) < AT_ONCE + 20


def test_where_policy_demands_readiness_a_version_waits_for_its_verifiers(replica, operator):
    """The operator alone is held back, and the log says that he tried. With what signs suspended,
    which is a responder's act too, nobody is kept from signatures that he could verify.
    """
    replica.rig.apply(f"{POLICY}rollouts: {{readiness: required}}\n")
    operator.make(1)
    operator.move("publish", 2)
    with pytest.raises(FailureError, match="must be shown") as caught:
        operator.move("activate", 2)
    assert caught.value.reason == reasons.REASON_VERIFIERS_NOT_READY
    last = decode(replica.rig.entries()[-1])
    assert isinstance(last, Admin)
    assert (last.act, last.actor) == (Act.KEY_MOVE_REFUSED, OPERATOR)
    operator.move("suspend", 1)
    operator.move("activate", 2)
