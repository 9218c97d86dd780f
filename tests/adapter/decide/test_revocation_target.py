"""What may be revoked: the form of each kind, and names that exist."""

from __future__ import annotations

import pytest
from capsign_adapter.decide.revocation_target import check_form, demand_known
from capsign_adapter.decide.revoked import RevocationIndex
from capsign_adapter.model.control import Revocation
from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import admin_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from hypothesis import given
from hypothesis import strategies as st
from support.handles import ORDERS, SERIAL, example

KINDS = [number for number in pb.RevocationKind.values() if number]
GOOD = {
    pb.REVOCATION_KIND_HANDLE: [SERIAL.hex()],
    pb.REVOCATION_KIND_GRANT: ["orders-events", "a", "a" * 64],
    pb.REVOCATION_KIND_WORKLOAD: [ORDERS],
    pb.REVOCATION_KIND_KEY: ["acme/orders"],
    pb.REVOCATION_KIND_TENANT: ["acme"],
    pb.REVOCATION_KIND_EVERYTHING: ["*"],
}
BAD = {
    pb.REVOCATION_KIND_HANDLE: [SERIAL.hex().upper(), SERIAL.hex()[1:], "*"],
    pb.REVOCATION_KIND_GRANT: ["Orders JWT", "acme/orders", "-a", "a" * 65, "*"],
    pb.REVOCATION_KIND_WORKLOAD: [
        "spiffe://capsign.test",
        "spiffe://capsign.test/",
        ORDERS + "/",
        "https://x/y",
        "*",
    ],
    pb.REVOCATION_KIND_KEY: [
        "/",
        "acme/",
        "/orders",
        "orders",
        "acme/orders/1",
        "Acme/orders",
        "*",
    ],
    pb.REVOCATION_KIND_TENANT: ["Acme", "acme/orders", "acme\n", "*"],
    pb.REVOCATION_KIND_EVERYTHING: ["acme", "**"],
}
UNKNOWN = [
    (pb.REVOCATION_KIND_GRANT, "orders-event", "Did you mean 'orders-events'?"),
    (pb.REVOCATION_KIND_KEY, "acme/order", "Did you mean 'acme/orders'?"),
    (pb.REVOCATION_KIND_TENANT, "acne", "Did you mean 'acme'?"),
]
STORED = [("former", "kept")]


def demand(kind, target, *revoked):
    demand_known(kind, target, example(), STORED, RevocationIndex(len(revoked), revoked))


@pytest.mark.parametrize(
    ("kind", "target"), [(kind, target) for kind, targets in GOOD.items() for target in targets]
)
def test_it_has_the_form_of_its_kind(kind, target):
    check_form(kind, target)


@pytest.mark.parametrize(
    ("kind", "target"), [(kind, target) for kind, targets in BAD.items() for target in targets]
)
def test_another_form_is_refused_with_a_sentence_that_shows_the_right_one(kind, target):
    """A name with a capital or a missing path ended as a defect of the adapter, in the moment when
    somebody had to revoke.
    """
    with pytest.raises(FailureError) as caught:
        check_form(kind, target)
    assert caught.value.reason == failures_pb2.REASON_INPUT_MALFORMED
    assert caught.value.field == "target"
    assert " is revoked " in caught.value.detail


def test_a_kind_that_is_none_is_refused():
    """A newer tool may know a kind that this adapter does not; it hears that nothing was done."""
    with pytest.raises(FailureError) as caught:
        check_form(77, "acme")
    assert caught.value.field == "kind"


@given(
    st.sampled_from(KINDS),
    st.from_regex(r"[a-z0-9/*:._ A-Z-]{1,255}", fullmatch=True)
    | st.sampled_from([target for targets in GOOD.values() for target in targets]),
)
def test_whatever_has_the_form_can_be_written_into_the_log(kind, target):
    """Two patterns that drift apart would refuse an emergency as a defect."""
    try:
        check_form(kind, target)
    except FailureError:
        return
    assert leaf.admin(1, bytes(32), Act(10 + kind), ORDERS, target, 1)


@pytest.mark.parametrize(("kind", "target", "hint"), UNKNOWN)
def test_a_name_that_neither_policy_nor_store_has_is_refused_with_the_nearest_one(
    kind, target, hint
):
    """A typing error was recorded as revoked and stopped nothing."""
    with pytest.raises(FailureError) as caught:
        demand(kind, target)
    assert caught.value.reason == failures_pb2.REASON_NOT_FOUND
    assert hint in caught.value.detail


@pytest.mark.parametrize(("kind", "target", "_"), UNKNOWN)
def test_what_was_revoked_before_may_be_revoked_again(kind, target, _):
    """A responder repeats a revocation whose answer was lost, after the policy has forgotten the
    name.
    """
    demand(kind, target, Revocation(1, kind, target, 0))


@pytest.mark.parametrize(
    ("kind", "target"),
    [(pb.REVOCATION_KIND_KEY, "former/kept"), (pb.REVOCATION_KIND_TENANT, "former")],
)
def test_what_only_the_store_knows_can_be_revoked(kind, target):
    """The policy no longer names the key, and its versions are still there."""
    demand(kind, target)


@pytest.mark.parametrize(("kind", "target"), [(kind, targets[0]) for kind, targets in GOOD.items()])
def test_what_the_policy_names_or_nobody_can_know_can_be_revoked(kind, target):
    """Serials of handles and workloads of another replica's policy are not known here, and must be
    revocable all the same.
    """
    demand(kind, target)


def test_a_workload_that_the_policy_does_not_name_is_refused_to_who_wants_that():
    """A typing error looked like a revocation, and the workload that was meant went on signing."""
    kind, wrong = pb.REVOCATION_KIND_WORKLOAD, ORDERS + "x"
    demand_known(kind, wrong, example(), STORED, RevocationIndex(0, ()))
    demand_known(kind, ORDERS, example(), STORED, RevocationIndex(0, ()), workloads=True)
    demand_known(
        kind,
        wrong,
        example(),
        STORED,
        RevocationIndex(1, (Revocation(1, kind, wrong, 0),)),
        workloads=True,
    )
    with pytest.raises(FailureError, match="Nothing was revoked") as caught:
        demand_known(kind, wrong, example(), STORED, RevocationIndex(0, ()), workloads=True)
    assert caught.value.reason == failures_pb2.REASON_NOT_FOUND
    assert f"Did you mean '{ORDERS}'?" in caught.value.detail


def test_an_operator_is_known_by_his_role():
    operator = next(iter(example().roles))
    demand_known(
        pb.REVOCATION_KIND_WORKLOAD,
        operator,
        example(),
        STORED,
        RevocationIndex(0, ()),
        workloads=True,
    )
