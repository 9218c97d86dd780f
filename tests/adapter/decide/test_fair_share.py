"""A rate that several share: one that is alone has it all, and none of several can use it up."""

from __future__ import annotations

import pytest
from capsign_adapter.decide.fair_share import HALF_LIFE_MS, MOST, FairShare
from capsign_adapter.decide.rate import Buckets
from hypothesis import given
from hypothesis import strategies as st

RATE, BURST = 100, 100


class Clock:
    def __init__(self) -> None:
        self.now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["take", "spend"])
def ask(request, clock):
    """Ask as a pod for some; how many were given."""
    way = getattr(Buckets(clock), request.param)
    return lambda pod, count=1: way("app", "jwt", RATE, BURST, count, pod).granted


def test_the_only_pod_of_a_deployment_has_the_whole_rate(ask, clock):
    given_ = 0
    for _ in range(10_000):  # ten seconds, a thousand a second
        clock.now_ms += 1
        given_ += ask(b"only")
    assert BURST + 10 * RATE - 1 <= given_ <= BURST + 10 * RATE


def test_a_pod_that_takes_whatever_there_is_leaves_its_siblings_theirs(ask, clock):
    """One of a hundred pods asked as fast as it could, and each of the others got what was left at
    that moment: nothing.
    """
    greedy = 0
    refused = [0] * 99
    for _ in range(20_000):
        clock.now_ms += 1
        greedy += ask(b"greedy")
        if clock.now_ms % 20 == 0:  # fifty a second among them: half of the rate
            number = clock.now_ms // 20 % 99
            refused[number] += not ask(b"sibling %d" % number)
    assert sum(refused) <= 1, "the first may come before anybody knows that it is there"
    assert greedy >= 0.45 * RATE * 20, "what the siblings do not use is not lost"


def test_two_that_want_everything_get_half_each(ask, clock):
    given_ = {b"one": 0, b"other": 0}
    for _ in range(30_000):
        clock.now_ms += 1
        for pod in given_:
            given_[pod] += ask(pod)
    assert sum(given_.values()) == pytest.approx(30 * RATE, rel=0.1)
    assert given_[b"one"] == pytest.approx(given_[b"other"], rel=0.25)


def test_a_sibling_that_has_left_is_forgotten(ask, clock):
    ask(b"sibling")
    for _ in range(BURST):
        ask(b"greedy")
    assert not ask(b"greedy")
    clock.now_ms += 3 * HALF_LIFE_MS
    assert sum(ask(b"greedy") for _ in range(2 * BURST)) == BURST


def test_the_debt_of_one_is_not_paid_by_the_others(clock):
    """`spend` lets somebody owe; from one of several only what is there beside the others' part is
    taken.
    """
    buckets = Buckets(clock)
    assert buckets.spend("app", "work", RATE, BURST, 10, b"sibling").granted
    assert buckets.spend("app", "work", RATE, BURST, 30, b"greedy").granted
    assert not buckets.spend("app", "work", RATE, BURST, 50, b"greedy").granted
    assert buckets.spend("app", "work", RATE, BURST, 50, b"sibling").granted


def test_what_is_given_back_is_there_again_and_never_more(clock):
    buckets = Buckets(clock)
    buckets.spend("app", "work", RATE, BURST, 60)
    buckets.give_back("app", "work", 60)
    buckets.give_back("app", "work", 60)
    assert buckets.take("app", "work", RATE, BURST, 2 * BURST).granted == BURST
    buckets.give_back("app", "nobody knows", 60)


@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 5), st.integers(0, 50)), max_size=60)
)
def test_somebody_is_always_within_its_part(steps):
    usage, now_ms = FairShare(0), 0
    for pause, member, count in steps:
        now_ms += pause
        usage.asks(str(member), now_ms)
        usage.uses(str(member), count)
    if steps:
        seen = list(usage.seen)
        assert not all(usage.asks(member, now_ms) for member in seen)
        assert usage.total == sum(each.used for each in usage.seen.values()) >= 0


def test_the_number_of_members_is_bounded():
    usage = FairShare(0)
    for number in range(MOST + 50):
        usage.asks(str(number), 0)
        usage.uses(str(number), 3)
    assert len(usage.seen) == MOST
    assert usage.total == 3 * MOST
