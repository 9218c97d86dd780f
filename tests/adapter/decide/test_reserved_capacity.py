"""Places that are kept for tenants and people while others take what is left."""

from __future__ import annotations

import pytest
from capsign_adapter.decide.reserved_capacity import PEOPLE, ReservedCapacity
from hypothesis import given
from hypothesis import strategies as st


def fill(reserved: ReservedCapacity, owner: str) -> int:
    """Take all that this owner gets; how many that are."""
    taken = 0
    while reserved.has_capacity(owner):
        reserved.acquire(owner)
        taken += 1
    return taken


def test_a_tenant_alone_has_all_but_what_is_kept_for_people():
    reserved = ReservedCapacity(32, 1)
    assert fill(reserved, "demo") == 28
    assert fill(reserved, PEOPLE) == 4
    assert len(reserved) == 32


def test_a_greedy_tenant_leaves_every_other_its_part():
    reserved = ReservedCapacity(32, 4)
    assert fill(reserved, "greedy") == 32 - 4 - 3 * 4
    assert [fill(reserved, name) for name in ("b", "c", "d", PEOPLE)] == [4, 4, 4, 4]


def test_what_is_given_back_can_be_taken_by_others():
    reserved = ReservedCapacity(32, 2)
    taken = fill(reserved, "greedy")
    assert fill(reserved, "other") == 8
    for _ in range(taken):
        reserved.release("greedy")
    assert fill(reserved, "other") == 12


def test_a_tenant_more_gets_its_part_as_soon_as_others_give_back():
    """The policy in force has another tenant by now; nobody loses a place that he holds."""
    reserved = ReservedCapacity(32, 1)
    assert fill(reserved, "old") == 28
    reserved.divide(2)
    assert fill(reserved, "old") == 0
    assert fill(reserved, "new") == 0
    for _ in range(8):
        reserved.release("old")
    assert fill(reserved, "old") == 0
    assert fill(reserved, "new") == 8
    reserved.divide(2)
    assert len(reserved) == 28


def test_a_tenant_less_gives_its_part_to_all():
    reserved = ReservedCapacity(32, 2)
    assert fill(reserved, "gone") == 20
    reserved.divide(1)
    assert fill(reserved, "stays") == 32 - 20 - 4
    for _ in range(20):
        reserved.release("gone")
    assert fill(reserved, "stays") == 20
    assert fill(reserved, PEOPLE) == 4


@pytest.mark.parametrize("places", [4, 5, 32, 512])
@pytest.mark.parametrize("tenants", [1, 2, 3, 100])
def test_together_they_never_have_more_than_there_is(places, tenants):
    reserved = ReservedCapacity(places, tenants)
    for number in range(tenants):
        fill(reserved, f"tenant-{number}")
    fill(reserved, PEOPLE)
    assert len(reserved) == places


OWNERS = ["a", "b", "c", PEOPLE]


@given(
    st.integers(4, 64), st.lists(st.tuples(st.booleans(), st.sampled_from(OWNERS)), max_size=200)
)
def test_whatever_comes_and_goes_a_tenant_below_its_part_gets_in(places, steps):
    reserved = ReservedCapacity(places, 3)
    held = dict.fromkeys(OWNERS, 0)
    for comes, owner in steps:
        if comes and reserved.has_capacity(owner):
            reserved.acquire(owner)
            held[owner] += 1
        elif not comes and held[owner]:
            reserved.release(owner)
            held[owner] -= 1
        for one in ("a", "b", "c"):
            assert held[one] >= reserved.each or reserved.has_capacity(one)
        assert len(reserved) == sum(held.values()) <= places
