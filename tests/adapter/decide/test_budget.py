"""Work is charged by its cost before it is done: every method has a price, and nobody can use up
what others share.
"""

from __future__ import annotations

import pytest
from capsign_adapter.decide import cost
from capsign_adapter.decide.budget import SECONDS_AT_ONCE, Budget, UsedUpError
from capsign_adapter.decide.rate import Buckets
from capsign_wire.adapter.v1 import (
    admin_pb2,
    approvals_pb2,
    capability_pb2,
    evidence_pb2,
    identity_pb2,
    revocations_pb2,
    signing_pb2,
)
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.types.v1 import algorithms_pb2
from capsign_wire.types.v1 import failures_pb2 as reasons
from google.protobuf import message_factory
from support.adapter_rig import APP, OPERATOR, OTHER, peer, rules

US_PER_SECOND = 100_000
AT_ONCE = US_PER_SECOND * SECONDS_AT_ONCE
UNARY = [
    method
    for module in (
        admin_pb2,
        approvals_pb2,
        capability_pb2,
        evidence_pb2,
        identity_pb2,
        revocations_pb2,
        signing_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not method.client_streaming
    and service.name != "EnrolmentService"  # it counts by address: nobody is known there
]


@pytest.fixture
def budget():
    return Budget(rules, Buckets(lambda: 0), US_PER_SECOND)


def spend_all(budget, who, step=1000):
    """How much there was."""
    spent = 0
    try:
        while spent < 100 * AT_ONCE:
            budget.charge(who, step)
            spent += step
    except UsedUpError:
        pass
    return spent


@pytest.mark.parametrize("method", UNARY, ids=lambda method: method.name)
def test_every_method_has_a_price(method):
    """Whoever adds a method says what it costs."""
    empty = message_factory.GetMessageClass(method.input_type)()
    assert cost.of_call(method.name, empty) >= cost.CALL


@pytest.mark.parametrize(
    "custody",
    [algorithms_pb2.CUSTODY_CLASS_ADAPTER_MEMORY, algorithms_pb2.CUSTODY_CLASS_HSM_DIRECT],
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_signature_has_a_price(algorithm, custody):
    assert cost.signature(algorithm, custody, 64 * 1024) > cost.signature(algorithm, custody) > 0


def test_a_handle_with_many_blocks_costs_more():
    assert cost.verification(4096) > 5 * cost.verification(600) == 5 * cost.VERIFY


def test_what_costs_nothing_is_never_refused():
    """All grants of a workload were revoked: to issue none of them was refused as too much work,
    and the agent heard RATE_LIMITED for as long as that lasted.
    """
    budget = Budget(rules, Buckets(lambda: 0), 1)
    for _ in range(3):
        budget.charge(peer(), 0)


def test_a_workload_has_so_much_and_another_has_its_own(budget):
    assert spend_all(budget, peer(APP)) == AT_ONCE
    with pytest.raises(UsedUpError, match="beside signatures is used up") as caught:
        budget.charge(peer(APP), 1000)
    assert caught.value.reason == reasons.REASON_RATE_LIMITED
    assert caught.value.retry_after_ms > 0
    budget.charge(peer(OTHER), 1000)


def test_a_tenant_has_twice_as_much_and_no_workload_all_of_it(budget):
    """Both workloads of the tenant want everything; neither keeps the other from what it may
    have.
    """
    assert spend_all(budget, peer(APP)) == AT_ONCE
    assert spend_all(budget, peer(OTHER)) >= AT_ONCE // 2


def test_one_pod_leaves_the_other_pods_of_its_deployment_theirs(budget):
    """One grant named 256 times by one pod, again and again: its siblings started without
    handles.
    """
    budget.charge(peer(APP, b"sibling"), 1)
    spend_all(budget, peer(APP, b"greedy"))
    budget.charge(peer(APP, b"sibling"), AT_ONCE // 4)


def test_what_is_refused_is_not_charged(budget):
    spend_all(budget, peer(APP))
    before = spend_all(budget, peer(OTHER))
    for _ in range(1000):
        with pytest.raises(UsedUpError):
            budget.charge(peer(APP), 1000)
    assert before > 0
    fresh = Budget(rules, Buckets(lambda: 0), US_PER_SECOND)
    spend_all(fresh, peer(APP))
    for _ in range(1000):
        with pytest.raises(UsedUpError):
            fresh.charge(peer(APP), 1000)
    assert spend_all(fresh, peer(OTHER)) == before


def test_who_has_a_role_is_not_charged(budget):
    for _ in range(100):
        budget.charge(peer(OPERATOR), AT_ONCE)


def test_a_limit_of_0_is_none():
    free = Budget(rules, Buckets(lambda: 0), 0)
    assert spend_all(free, peer(APP), AT_ONCE) == 100 * AT_ONCE
