"""Unary calls: charged before they begin, one of a tenant at a time, in turn by certificate."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from capsign_adapter.decide import cost
from capsign_adapter.decide.budget import SECONDS_AT_ONCE, Budget
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front.charging import AT_ONCE, ChargingRegistrar
from capsign_adapter.sign.fair_scheduler import FairQueue, FairScheduler
from capsign_adapter.sign.scheduled_token import ScheduledToken
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, OPERATOR, OTHER, rules
from support.calls import FakeCall

US_PER_SECOND = 10_000


class Kept:
    """Takes the handlers that a registrar hands on."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_registered_method_handlers(self, _: str, handlers: dict[str, Any]) -> None:
        self.handlers.update(handlers)


@pytest.fixture
def token():
    """Has nothing behind it: no call here asks it anything but to yield."""
    return ScheduledToken(None, FairQueue(1))


@pytest.fixture
def register(token):
    """The call that is made of a method."""

    def registered(
        method: Callable[[Any, Any], Any],
        name: str = "GetTile",
        pause: Callable[[int], object] = lambda _: pytest.fail("over its budget"),
    ) -> Callable[[Any, Any], Any]:
        kept = Kept()
        registrar = ChargingRegistrar(
            kept,
            rules,
            Budget(rules, Buckets(lambda: 0), US_PER_SECOND),
            FairScheduler(2),
            token,
            pause,
        )
        registrar.add_registered_method_handlers(
            "service", {name: grpc.unary_unary_rpc_method_handler(method)}
        )
        return kept.handlers[name].unary_unary

    return registered


ASK = evidence_pb2.GetTileRequest()


def test_who_has_used_up_its_budget_is_told_after_a_while_and_nothing_is_done(register):
    """VerifyTag, proofs and lists of keys in a loop: each was refused at once, and each refusal
    cost as much as an answer.
    """
    paused: list[Any]
    paused, done = [], []
    call = register(lambda request, _: done.append(request), pause=paused.append)
    affordable = US_PER_SECOND * SECONDS_AT_ONCE // cost.of_call("GetTile", ASK)
    for _ in range(affordable + 1):
        call(ASK, FakeCall(APP))  # the last one on credit
    with pytest.raises(FailureError) as caught:
        call(ASK, FakeCall(APP))
    assert caught.value.reason == reasons.REASON_RATE_LIMITED
    assert len(paused) == 1
    assert len(done) == affordable + 1
    call(ASK, FakeCall(OTHER))
    for _ in range(1000):
        call(ASK, FakeCall(OPERATOR))


def test_calls_of_a_tenant_are_done_one_at_a_time_and_in_turn_by_key(register):
    """Eight calls at once of one pod, three of them under way: whoever signed had half of its rate.
    Its sibling has the next turn, and people wait for nobody.
    """
    begun, go_on, order = threading.Semaphore(0), threading.Semaphore(0), []
    counting, at_once, most = threading.Lock(), 0, 0

    def method(_: Any, who: Any) -> None:
        nonlocal at_once, most
        order.append(who.key)
        if who.spiffe_id == OPERATOR:
            return
        with counting:
            at_once += 1
            most = max(most, at_once)
        begun.release()
        assert go_on.acquire(timeout=30)
        with counting:
            at_once -= 1

    call = register(method)
    greedy, sibling = FakeCall(APP, b"greedy-"), FakeCall(APP, b"sibling")
    threads = [threading.Thread(target=call, args=(ASK, greedy)) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert begun.acquire(timeout=10)
    call(ASK, FakeCall(OPERATOR))
    threads += [
        threading.Thread(target=call, args=(ASK, one)) for one in (sibling, FakeCall(OTHER))
    ]
    for thread in threads[-2:]:
        thread.start()
    for _ in range(8):
        go_on.release()
    for thread in threads:
        thread.join(30)
    assert most == AT_ONCE
    assert order.count(b"sibling") == 1
    assert order.count(b"greedy-") == 6
    assert len(order) == 9


def test_who_waits_for_token_or_store_keeps_nobody_from_computing(register, token):
    """An HSM that hangs for one must not be the end of all calls of its tenant."""
    waiting, go_on = threading.Semaphore(0), threading.Event()

    def method(_: Any, who: Any) -> str:
        if who.spiffe_id == APP:
            with token.yielded():
                waiting.release()
                assert go_on.wait(30)
        return "done"

    call = register(method)
    threads = [threading.Thread(target=call, args=(ASK, FakeCall(APP))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert all(waiting.acquire(timeout=10) for _ in threads)
    assert call(ASK, FakeCall(OTHER)) == "done"
    go_on.set()
    for thread in threads:
        thread.join(30)


def test_what_waits_for_the_cluster_holds_nobody_up(register):
    begun, go_on = threading.Semaphore(0), threading.Event()

    def method(*_: Any) -> None:
        begun.release()
        assert go_on.wait(30)

    call = register(method, "Renew")
    threads = [threading.Thread(target=call, args=(ASK, FakeCall(APP))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert all(begun.acquire(timeout=10) for _ in threads)
    go_on.set()
    for thread in threads:
        thread.join(30)
