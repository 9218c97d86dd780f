"""What a revocation covers, kind by kind."""

from __future__ import annotations

import pytest
from capsign_adapter.decide.revoked import RevocationIndex
from capsign_adapter.model.control import Revocation
from capsign_wire.adapter.v1 import admin_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from support.handles import ORDERS, RELEASE, SERIAL, events, example


def index(kind, target):
    return RevocationIndex(7, [Revocation(7, kind, target, 0)])


COVERS = [
    (pb.REVOCATION_KIND_HANDLE, SERIAL.hex()),
    (pb.REVOCATION_KIND_HANDLE, SERIAL.hex().upper()),
    (pb.REVOCATION_KIND_GRANT, "orders-events"),
    (pb.REVOCATION_KIND_WORKLOAD, ORDERS),
    (pb.REVOCATION_KIND_KEY, "acme/orders"),
    (pb.REVOCATION_KIND_TENANT, "acme"),
    (pb.REVOCATION_KIND_EVERYTHING, "*"),
    (pb.REVOCATION_KIND_EVERYTHING, "whatever was typed"),
]
SPARES = [
    (pb.REVOCATION_KIND_HANDLE, bytes(16).hex()),
    (pb.REVOCATION_KIND_GRANT, "orders-tokens"),
    (pb.REVOCATION_KIND_WORKLOAD, ORDERS + "2"),
    (pb.REVOCATION_KIND_KEY, "acme/releases"),
    (pb.REVOCATION_KIND_KEY, "orders"),
    (pb.REVOCATION_KIND_TENANT, "acme2"),
    # A name revoked as one kind says nothing about the same name as another kind.
    (pb.REVOCATION_KIND_TENANT, "orders-events"),
]


@pytest.mark.parametrize(("kind", "target"), COVERS)
def test_it_covers(kind, target):
    with pytest.raises(FailureError) as caught:
        index(kind, target).refuse(events())
    assert caught.value.reason == failures_pb2.REASON_HANDLE_REVOKED
    assert "epoch 7" in caught.value.detail


@pytest.mark.parametrize(("kind", "target"), SPARES)
def test_it_spares(kind, target):
    index(kind, target).refuse(events())


@pytest.mark.parametrize(("kind", "target"), COVERS)
def test_only_the_revocation_of_one_handle_lets_new_ones_be_issued(kind, target):
    found = index(kind, target).of_grant(example().grant("orders-events"), ORDERS)
    assert (found is None) == (kind == pb.REVOCATION_KIND_HANDLE)


def test_a_handle_minted_after_the_revocation_is_covered_too():
    # A replica that had not heard of the revocation minted a handle after it. Were it spared,
    # revoking would depend on which replica an agent asked.
    late = events(not_before_ms=2**40, expires_ms=2**41)
    with pytest.raises(FailureError):
        index(pb.REVOCATION_KIND_GRANT, "orders-events").refuse(late)


def test_a_workload_is_withdrawn_whole_by_its_own_revocation_or_that_of_everything():
    assert index(pb.REVOCATION_KIND_WORKLOAD, ORDERS).of_workload(ORDERS)
    assert index(pb.REVOCATION_KIND_EVERYTHING, "*").of_workload(ORDERS)
    assert index(pb.REVOCATION_KIND_WORKLOAD, RELEASE).of_workload(ORDERS) is None
    assert index(pb.REVOCATION_KIND_GRANT, "orders-events").of_workload(ORDERS) is None


def test_serials():
    assert index(pb.REVOCATION_KIND_HANDLE, SERIAL.hex()).serials() == [SERIAL]
    assert RevocationIndex(0).serials() == []


def test_the_serial_that_was_revoked_last_comes_first():
    """One was revoked a second time after the others: whoever tells only the newest tells of that
    one before all.
    """
    revoked = [(1, 3), (2, 1), (3, 2), (4, 3)]
    each = [
        Revocation(epoch, pb.REVOCATION_KIND_HANDLE, bytes([number] * 16).hex(), 0)
        for epoch, number in revoked
    ]
    assert [serial[0] for serial in RevocationIndex(4, each).serials()] == [3, 2, 1]


@pytest.mark.parametrize("kind", [0, 99])
def test_a_kind_this_version_does_not_know_stops_it_rather_than_being_skipped(kind):
    with pytest.raises(ValueError, match="do not skip it"):
        index(kind, "x")


def test_an_identity_gets_no_certificate_while_it_is_withdrawn_and_who_administers_only_by_name():
    everything = index(pb.REVOCATION_KIND_EVERYTHING, "*")
    assert everything.of_identity(ORDERS, administers=False)
    assert everything.of_identity(ORDERS, administers=True) is None
    for administers in (False, True):
        assert index(pb.REVOCATION_KIND_WORKLOAD, ORDERS).of_identity(
            ORDERS, administers=administers
        )
        assert (
            index(pb.REVOCATION_KIND_WORKLOAD, RELEASE).of_identity(ORDERS, administers=administers)
            is None
        )
        assert (
            index(pb.REVOCATION_KIND_TENANT, "acme").of_identity(ORDERS, administers=administers)
            is None
        )
    both = RevocationIndex(
        8,
        [
            Revocation(7, pb.REVOCATION_KIND_WORKLOAD, ORDERS, 0),
            Revocation(8, pb.REVOCATION_KIND_EVERYTHING, "*", 0),
        ],
    )
    assert both.of_identity(ORDERS, administers=True)


@pytest.mark.parametrize(
    ("kind", "target", "covered"),
    [
        (pb.REVOCATION_KIND_KEY_VERSION, "acme/orders/1", {1}),
        (pb.REVOCATION_KIND_KEY, "acme/orders", {1, 2}),
        (pb.REVOCATION_KIND_TENANT, "acme", {1, 2}),
        (pb.REVOCATION_KIND_EVERYTHING, "*", {1, 2}),
        (pb.REVOCATION_KIND_GRANT, "orders-events", set()),
        (pb.REVOCATION_KIND_WORKLOAD, ORDERS, set()),
        (pb.REVOCATION_KIND_KEY, "acme/releases", set()),
    ],
)
def test_a_version_does_not_sign_under_its_own_revocation_or_a_wider_one(kind, target, covered):
    found = index(kind, target)
    told = {number for number in (1, 2) if found.of_key_version("acme", "orders", number)}
    assert told == covered
