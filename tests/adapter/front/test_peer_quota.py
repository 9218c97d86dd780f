"""Who holds a place: counts of keys and of workloads, without a server."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack

import pytest
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front import peer_quota as module
from capsign_adapter.front.peer_quota import (
    PeerQuota,
    calls_of_one_workload,
    streams_of_one_workload,
)
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, OPERATOR, OTHER, STRANGER, rules
from support.calls import FakeCall

PLACES = 64
CALLS_PER_SECOND = 100


class Held:
    """Takes places for (SPIFFE ID, key); what is taken is kept until the stack ends."""

    def __init__(self, places: PeerQuota, stack: ExitStack) -> None:
        self.quota = places
        self._stack = stack

    def take(self, kind: str, who: str, key: bytes) -> None:
        about = {"working": ("GetPublicKeys", 100), "waiting": ("GetPublicKeys",)}.get(kind, ())
        self._stack.enter_context(getattr(self.quota, kind)(FakeCall(who, key), *about))

    def take_all(self, kind: str, who: str, count: int, *, each: int) -> int:
        """How many of `count` are given, with `each` for every key."""
        given = 0
        for number in range(count):
            with contextlib.suppress(FailureError):
                self.take(kind, who, b"%d" % (number // each))
                given += 1
        return given


@pytest.fixture
def places():
    return PeerQuota(rules, PLACES, Buckets(lambda: 0), CALLS_PER_SECOND)


@pytest.fixture
def held(places):
    with ExitStack() as stack:
        yield Held(places, stack)
    assert not places.held


def test_one_key_has_its_streams_and_no_more(held):
    """One certificate opens streams and lets them lie."""
    assert held.take_all("stream", APP, 40, each=40) == module.STREAMS_OF_ONE_KEY


def test_a_workload_with_many_keys_has_three_quarters_of_the_places_with_streams(held):
    """Each renewal makes a key, and the last one stays good: counted by key alone, five of them
    took everything.
    """
    assert held.take_all("stream", APP, 80, each=10) == PLACES * 3 // 4
    with pytest.raises(FailureError, match="This workload has 48 open streams") as caught:
        held.take("stream", APP, b"another")
    assert caught.value.reason == reasons.REASON_OVERLOADED
    assert caught.value.retry_after_ms
    held.take("stream", OTHER, b"k")


def test_a_workload_with_many_keys_has_seven_eighths_with_calls_that_wait_or_work(held):
    """Its calls are stuck behind a store that hangs; the last eighth is for the others, for people
    with roles before all.
    """
    assert held.take_all("working", APP, 30, each=1) == 30
    assert held.take_all("waiting", APP, 80, each=module.WAITING_OF_ONE_KEY) == 56 - 30
    with pytest.raises(FailureError, match="This workload has 56 open calls"):
        held.take("working", APP, b"another")
    held.take("working", OPERATOR, b"k")


def test_a_workload_with_all_its_streams_still_renews(held):
    """Without room beside the streams, every handle of a large Deployment would run out at once."""
    held.take_all("stream", APP, 80, each=10)
    assert held.take_all("working", APP, 80, each=1) == PLACES // 8


def test_one_pod_leaves_its_siblings_a_way_in(held):
    """One pod's calls waited for a store that hung, or for their turn, in every place that its
    Deployment may have.
    """
    assert held.take_all("working", APP, 80, each=80) == module.calls_of_one_key(PLACES) == 42
    with pytest.raises(FailureError, match="This certificate has 42 open calls") as caught:
        held.take("working", APP, b"0")
    assert caught.value.reason == reasons.REASON_OVERLOADED
    held.take("stream", APP, b"sibling")
    held.take("working", APP, b"sibling")


def test_two_workloads_of_a_tenant_leave_people_their_places(held):
    """Each of them stays within what a workload may have, and together they would have all."""
    held.take_all("working", APP, 40, each=20)
    assert held.take_all("waiting", OTHER, 40, each=module.WAITING_OF_ONE_KEY) == 56 - 40
    with pytest.raises(FailureError, match="this tenant has all that it may") as caught:
        held.take("stream", OTHER, b"another")
    assert caught.value.reason == reasons.REASON_OVERLOADED
    for number in range(PLACES // 8):
        held.take("working", OPERATOR, b"%d" % number)


def test_what_is_refused_takes_nothing(held):
    """A refused call adds to no count, so that who tries again and again gets in when there is
    room.
    """
    assert held.take_all("stream", APP, 200, each=20) == PLACES * 3 // 4
    assert held.quota.held.total() == 4 * PLACES * 3 // 4


@pytest.mark.parametrize("kind", ["stream", "waiting", "working"])
def test_a_stranger_has_no_place(held, kind):
    """A certificate that is good and that no policy names."""
    with pytest.raises(FailureError) as caught:
        held.take(kind, STRANGER, b"k")
    assert caught.value.reason == reasons.REASON_IDENTITY_UNKNOWN


@pytest.mark.parametrize("places", [4, 16, 32, 512, 4096])
def test_a_workload_may_always_have_what_one_key_may(places):
    """A small adapter, with one pod, must serve it as before."""
    assert streams_of_one_workload(places) >= module.STREAMS_OF_ONE_KEY
    assert calls_of_one_workload(places) >= module.STREAMS_OF_ONE_KEY + module.WAITING_OF_ONE_KEY


def test_one_pod_does_not_use_up_the_calls_of_its_deployment(places):
    def call(key: bytes) -> bool:
        with (
            contextlib.suppress(FailureError),
            places.working(FakeCall(APP, key), "GetPublicKeys", 100),
        ):
            return True
        return False

    assert call(b"sibling")
    for _ in range(10 * CALLS_PER_SECOND):
        call(b"greedy")
    assert all(call(b"sibling") for _ in range(CALLS_PER_SECOND))


def answered(places, who: str, method: str, size: int, times: int) -> int:
    """How many of so many calls, one after another, are not refused by the rate."""
    given = 0
    for _ in range(times):
        with contextlib.suppress(FailureError), places.working(FakeCall(who, b"k"), method, size):
            given += 1
    return given


def test_a_workload_has_a_rate_for_each_method(places):
    """It submitted audit batches of a mebibyte, or asked for the keys of one transcript after
    another, as fast as it could: the disk filled, and the token had no time for signatures.
    """
    assert (
        answered(places, APP, "GetPublicKeys", 100, 1000)
        == CALLS_PER_SECOND * module.SECONDS_AT_ONCE
    )
    assert answered(places, APP, "IssueHandles", 100, 1) == 1, (
        "what it floods keeps it from nothing else"
    )
    assert answered(places, OTHER, "GetPublicKeys", 100, 1) == 1
    with pytest.raises(FailureError, match="This workload calls GetPublicKeys too often") as caught:
        places.working(FakeCall(APP, b"another key"), "GetPublicKeys", 100).__enter__()
    assert caught.value.reason == reasons.REASON_RATE_LIMITED
    assert caught.value.outcome == reasons.OUTCOME_UNAVAILABLE, (
        "an agent keeps the batch and sends it again"
    )
    assert caught.value.retry_after_ms == 1000 // CALLS_PER_SECOND


def test_a_large_request_counts_for_many(places):
    at_once = CALLS_PER_SECOND * module.SECONDS_AT_ONCE
    assert answered(places, APP, "SubmitAudit", 1 << 20, 1000) == -(-at_once // 17)


def test_who_has_a_role_is_not_counted(places):
    assert answered(places, OPERATOR, "GetEntries", 100, 1000) == 1000
