"""Whom a revocation reaches, before it is done."""

from __future__ import annotations

import pytest
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.revocation_reach import lifted_by, reach_of
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_wire.adapter.v1 import admin_pb2 as pb
from capsign_wire.algorithms import BY_NAME
from capsign_wire.types.v1 import signing_pb2
from support.adapter_rig import APP, APPROVER, OTHER, POLICY

ACTIVE, DEACTIVATED = signing_pb2.KEY_STATE_ACTIVE, signing_pb2.KEY_STATE_DEACTIVATED
ALL = tuple(BY_NAME[name].number for name in ("Ed25519", "ES256", "HS256", "ML-DSA-65"))
OF_ORDERS = ("orders-jwt", "others", "slow", "thrice")


def version(number: int, algorithms=ALL, state=ACTIVE) -> KeyVersionRow:
    return KeyVersionRow("demo", "orders", number, state, algorithms, "label", b"8 bytes!", 0)


def reach(kind, target, versions=()):
    return reach_of(kind, target, parse_policy(POLICY.encode()), versions)


@pytest.mark.parametrize(
    ("kind", "target", "workloads", "grants"),
    [
        (pb.REVOCATION_KIND_GRANT, "orders-jwt", (APP,), ("orders-jwt",)),
        (pb.REVOCATION_KIND_WORKLOAD, OTHER, (OTHER,), ("others",)),
        (pb.REVOCATION_KIND_KEY, "demo/orders", (APP, OTHER), OF_ORDERS),
        (pb.REVOCATION_KIND_KEY, "demo/release", (APP,), ("release",)),
        (pb.REVOCATION_KIND_TENANT, "demo", (APP, OTHER), (*OF_ORDERS, "release")),
        (pb.REVOCATION_KIND_EVERYTHING, "*", (APP, OTHER), (*OF_ORDERS, "release")),
        (pb.REVOCATION_KIND_HANDLE, "00" * 16, (), ()),
        (pb.REVOCATION_KIND_TENANT, "nobody", (), ()),
    ],
)
def test_who_stops_signing(kind, target, workloads, grants):
    found = reach(kind, target)
    assert (found.workloads, found.grants) == (tuple(sorted(workloads)), tuple(sorted(grants)))
    assert found.handle_life_ms == (900_000 if grants else 0)
    assert found.wide == (bool(workloads) or kind == pb.REVOCATION_KIND_TENANT)


def test_a_version_that_others_stand_in_for_stops_nobody():
    found = reach(pb.REVOCATION_KIND_KEY_VERSION, "demo/orders/2", [version(1), version(2)])
    assert (found.workloads, found.successors, found.wide) == ((), (1,), False)


def test_the_only_version_stops_all_of_its_key():
    rows = [version(1, state=DEACTIVATED), version(2)]
    found = reach(pb.REVOCATION_KIND_KEY_VERSION, "demo/orders/2", rows)
    assert (found.grants, found.successors, found.wide) == (OF_ORDERS, (), True)


def test_who_needs_an_algorithm_that_no_other_version_has_stops():
    rows = [version(1, (BY_NAME["Ed25519"].number,)), version(2)]
    found = reach(pb.REVOCATION_KIND_KEY_VERSION, "demo/orders/2", rows)
    assert (found.grants, found.successors) == (("orders-jwt",), (1,))


def test_a_version_that_does_not_sign_stops_nobody():
    rows = [version(1, state=DEACTIVATED), version(2)]
    found = reach(pb.REVOCATION_KIND_KEY_VERSION, "demo/orders/1", rows)
    assert (found.grants, found.successors) == ((), (2,))


def test_a_person_who_loses_a_role_is_asked_about():
    """The only approver could be revoked by a typing error, and nobody lifted it."""
    found = reach(pb.REVOCATION_KIND_WORKLOAD, APPROVER)
    assert (found.workloads, found.roles, found.wide) == ((), ("approver",), True)


@pytest.mark.parametrize("kind", sorted(set(pb.RevocationKind.values()) - {0}))
def test_it_is_said_what_lifts_it(kind):
    assert ("Nothing lifts it" in lifted_by(kind)) == (kind == pb.REVOCATION_KIND_HANDLE)
