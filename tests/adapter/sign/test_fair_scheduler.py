"""Turns: the next one goes to whoever had least, by tenant, workload and certificate; what is large
lets what is small finish.
"""

from __future__ import annotations

import threading

import pytest
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.sign import fair_scheduler
from capsign_adapter.sign.fair_scheduler import (
    SMALL_US,
    TURN_US,
    FairQueue,
    FairScheduler,
    Turn,
    flow_of,
)
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, POLICY, peer

GREEDY, SIBLING = ("demo", "app", b"greedy", "web"), ("demo", "app", b"sibling", "web")
MATE, STRANGER = ("demo", "mate", b"mate", ""), ("else", "stranger", b"stranger", "")
NEIGHBOUR = ("demo", "app", b"greedy", "cron")


class Crowd:
    """Threads that wait for one queue; the order in which they get their turns."""

    def __init__(self, queue: FairQueue) -> None:
        self.queue = queue
        self.order: list[fair_scheduler.Flow] = []
        self._threads: list[threading.Thread] = []

    def wait(self, flow: fair_scheduler.Flow, count: int, cost_us: int = TURN_US) -> None:
        """So many threads of that flow stand in line when this returns."""

        def stand() -> None:
            self.queue.take(flow, cost_us)
            self.order.append(flow)
            self.queue.give()

        for _ in range(count):
            before = self.waiting_count()
            thread = threading.Thread(target=stand)
            thread.start()
            self._threads.append(thread)
            while self.waiting_count() == before:  # it is on its way into the queue
                threading.Event().wait(0.001)

    def waiting_count(self) -> int:
        return self.queue.waiting_count

    def finish(self) -> list[fair_scheduler.Flow]:
        self.queue.give()
        for thread in self._threads:
            thread.join(10)
        return self.order


@pytest.fixture
def crowd():
    queue = FairQueue(1)
    queue.take(("", "nobody", b"", ""), 0)
    return Crowd(queue)


@pytest.mark.parametrize(
    "other",
    [NEIGHBOUR, SIBLING, MATE, STRANGER],
    ids=["another socket of the pod", "a sibling", "another workload", "another tenant"],
)
def test_who_comes_with_many_threads_does_not_keep_another_waiting(crowd, other):
    """Sixteen streams of one pod each had a turn before anybody else had one."""
    crowd.wait(GREEDY, 16)
    crowd.wait(other, 2)
    order = crowd.finish()
    assert order.index(other) <= 1
    assert len(order) - 1 - order[::-1].index(other) <= 3


def test_work_is_done_for_a_tenant_a_workload_a_certificate_and_a_socket():
    """Any of them that is left out shares one turn with its siblings."""
    policy, pod, sibling = parse_policy(POLICY.encode()), peer(APP, b"pod"), peer(APP, b"sibling")
    assert flow_of(policy, pod, "web") == ("demo", APP, pod.key_hash, "web")
    assert flow_of(policy, sibling, "web") != flow_of(policy, pod, "web")
    assert flow_of(policy, pod, "cron") != flow_of(policy, pod, "web")


def test_a_tenant_has_no_more_for_having_many_workloads(crowd):
    for number in range(8):
        crowd.wait(("demo", f"app {number}", b"%d" % number, ""), 2)
    crowd.wait(STRANGER, 4)
    order = crowd.finish()
    assert sum(flow == STRANGER for flow in order[:8]) >= 3


def test_dear_work_counts_for_more_than_cheap_work(crowd):
    crowd.wait(GREEDY, 8, cost_us=8 * TURN_US)
    crowd.wait(STRANGER, 8, cost_us=TURN_US)
    order = crowd.finish()
    assert order[:10].count(STRANGER) == 8


def test_whoever_comes_back_from_a_pause_has_no_claim_on_what_it_did_not_use():
    queue = FairQueue(1)
    for _ in range(50):
        queue.take(GREEDY, TURN_US)
        queue.give()
    queue.take(GREEDY, TURN_US)
    crowd = Crowd(queue)
    crowd.wait(STRANGER, 10)
    crowd.wait(GREEDY, 10)
    assert crowd.finish()[:10].count(GREEDY) >= 4


def test_a_turn_that_does_not_come_is_an_overload_and_leaves_no_trace():
    queue = FairQueue(1, wait_s=0.01)
    queue.take(GREEDY, TURN_US)
    with pytest.raises(FailureError) as caught:
        queue.take(STRANGER, TURN_US)
    assert caught.value.reason == reasons.REASON_OVERLOADED
    assert not queue.contended
    queue.give()
    queue.take(STRANGER, TURN_US)
    queue.give()


def test_what_is_remembered_is_bounded():
    queue = FairQueue(1)
    for number in range(fair_scheduler.MOST):
        queue.take(("demo", f"app {number}", b"", ""), TURN_US)
        queue.give()
    assert queue.remembered <= fair_scheduler.MOST + 4


def test_whoever_is_alone_computes_without_a_pause():
    turns = FairScheduler(2)
    with Turn(turns, GREEDY) as turn:
        turn.spend(100 * TURN_US)
        assert turns.large.free == 1, "large, and yet nobody to let go first"
        assert not turn.contended


def test_what_is_large_waits_until_what_is_small_has_finished():
    """A commit of four signatures waited behind pieces of a thousand, once for each time that it
    needed Python's lock.
    """
    turns, went_on = FairScheduler(2, small_first_s=(30.0, 30.0)), threading.Event()
    with Turn(turns, STRANGER) as small:
        small.spend(TURN_US)

        def large() -> None:
            with Turn(turns, GREEDY) as turn:
                turn.spend(SMALL_US + 1)
                went_on.set()

        thread = threading.Thread(target=large)
        thread.start()
        while not turns.waiting:
            threading.Event().wait(0.001)
        assert not went_on.is_set()
    assert went_on.wait(10)
    thread.join(10)


def test_what_is_large_does_not_wait_for_long():
    turns = FairScheduler(2)
    with Turn(turns, STRANGER) as small, Turn(turns, GREEDY) as large:
        small.spend(TURN_US)
        for _ in range(5):
            large.spend(SMALL_US)
        assert large.contended
    assert turns.small_active == 0
    assert turns.active_flows == 0


def test_what_is_small_counts_too_where_parts_are_held_against_each_other():
    """Only what was large counted, so whoever alone sent large batches never had more than its
    part.
    """
    turns, went_on = FairScheduler(2, small_first_s=(0.0, 30.0)), threading.Event()

    def large() -> None:
        with Turn(turns, GREEDY) as turn:
            for _ in range(3):
                turn.spend(SMALL_US)
        went_on.set()

    with Turn(turns, STRANGER), Turn(turns, MATE):
        with Turn(turns, STRANGER) as small:
            small.spend(TURN_US)
        thread = threading.Thread(target=large)
        thread.start()
        assert not went_on.wait(0.05), "the second piece is above its part, and lets others finish"
    assert went_on.wait(10)
    thread.join(10)


def test_two_sockets_of_a_pod_are_company():
    """One container's batches of 32 were in front of its neighbour's single signatures."""
    turns = FairScheduler(2)
    with Turn(turns, GREEDY), Turn(turns, NEIGHBOUR) as neighbour:
        assert neighbour.contended
