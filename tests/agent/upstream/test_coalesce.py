"""The queue between callers and streams, without any network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from capsign_agent.handles.held_handle import HeldHandle
from capsign_agent.handles.rate_limit import RateLimit
from capsign_agent.handles.scope import HandleScope
from capsign_agent.upstream.batch import BATCH_BYTES, Batch
from capsign_agent.upstream.call import Call
from capsign_agent.upstream.coalesce import CROWDED_ITEMS, Coalescer
from capsign_wire import bounds
from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as fail
from capsign_wire.types.v1 import signing_pb2 as types
from hypothesis import given
from hypothesis import strategies as st
from support.signed import only


def held(name: str = "app") -> HeldHandle:
    one = HeldHandle(name, "tokens", RateLimit(0, 0, 0.0))
    one.token = b"token of " + name.encode()
    return one


HELD = held()


class FakeFuture:
    """As much of a future as the queue looks at."""

    def __init__(self) -> None:
        self.error: Any = None
        self.result: Any = None

    def done(self) -> bool:
        return self.error is not None or self.result is not None

    def set_exception(self, error: Any) -> None:
        self.error = error


def call(
    items: int = 1,
    size: int = 10,
    *,
    of: HeldHandle = HELD,
    algorithm: int = 1,
    kid: str = "",
    protocol: str = "jwt",
) -> Call:
    suffix = types.ContextSuffix(protocol=protocol)
    intents = [b"%016d" % number for number in range(items)]
    future: Any = FakeFuture()
    return Call(
        HandleScope(of, algorithm, suffix, suffix.SerializeToString()),
        kid,
        intents,
        [bytes(size)] * items,
        future,
    )


def queue(max_items: int = 16384, max_bytes: int = 1 << 24) -> Coalescer:
    return Coalescer(max_items, max_bytes, lambda: None)


def unheard(lost: Call, why: int) -> None:
    raise AssertionError(f"{lost} was recorded as lost")


class Stream:
    """Notes that it was woken."""

    def __init__(self, load: int = 0) -> None:
        self.woken = 0
        self.load = load

    def wake(self) -> None:
        self.woken += 1


def test_a_call_wakes_one_idle_stream_and_no_busy_one() -> None:
    one, idle, other = queue(), Stream(), Stream()
    one.submit(call())
    one.park(other)
    one.park(idle)
    one.submit(call())
    assert (idle.woken, other.woken) == (1, 0)
    one.gone(idle)
    assert other.woken == 1


def test_the_replica_with_the_least_to_do_gets_the_next_batch() -> None:
    one, busy, free = queue(), Stream(load=1), Stream(load=0)
    one.park(free)
    one.park(busy)
    one.submit(call())
    assert (free.woken, busy.woken) == (1, 0)


def test_among_equals_the_stream_that_worked_last_gets_it() -> None:
    one, cold, warm = queue(), Stream(), Stream()
    one.park(cold)
    one.park(warm)
    one.submit(call())
    assert (cold.woken, warm.woken) == (0, 1)


def test_a_stream_that_ends_hands_its_wake_on() -> None:
    """Woken, then broken before it took anything: what waits must not wait for the next caller."""
    one, broken, other = queue(), Stream(), Stream()
    one.park(other)
    one.park(broken)
    one.submit(call())
    assert broken.woken == 1
    one.gone(broken)
    assert other.woken == 1


def test_what_gathers_leaves_together_oldest_first() -> None:
    one = queue()
    calls = [call() for _ in range(10)]
    for each in calls:
        one.submit(each)
    batch = one.take(unheard)
    assert batch is not None
    assert batch.calls == calls
    assert len(batch.groups) == 1
    assert one.take(unheard) is None
    assert (one.items, one.bytes) == (0, 0)


def test_only_equal_handle_algorithm_context_and_key_share_a_group() -> None:
    other = held("other")
    kinds = [call(), call(), call(of=other), call(algorithm=2), call(kid="k"), call(protocol="tls")]
    batch = Batch(kinds)
    assert [len(calls) for calls in batch.groups.values()] == [2, 1, 1, 1, 1]
    request = batch.request(7)
    bounds.check(request)
    assert len(request.handles) == 2
    assert {group.caller for group in request.groups} == {"app", "other"}
    for group, calls in zip(request.groups, batch.groups.values(), strict=True):
        assert request.handles[group.handle_index] == calls[0].held.token


def test_the_token_is_the_one_held_when_it_is_sent() -> None:
    one = held()
    waiting = call(of=one)
    one.token = b"renewed"
    assert Batch([waiting]).request(1).handles == [b"renewed"]
    one.token = b""
    assert Batch([waiting]).request(1).handles == [b"token of app"]


def test_what_has_its_answer_is_not_sent() -> None:
    one, given_up, waits = queue(), call(), call()
    one.submit(given_up)
    one.submit(waits)
    given_up.fail(FailureError(fail.REASON_ANSWER_LATE))
    batch = one.take(unheard)
    assert batch is not None
    assert batch.calls == [waits]


def test_a_sent_call_that_nobody_waits_for_is_settled_when_it_is_left_out() -> None:
    """Sent, queued again, its caller gone: it was dropped without an outcome and its room in the
    journal was never given back.
    """
    one, gone, late, heard = queue(), call(), call(), []
    for sent in (gone, late):
        sent.journalled = sent.sent = True
        sent.fail(FailureError(fail.REASON_ANSWER_LATE))
    late.recorded = True
    one.rest([gone, late])
    one.again([gone, late])
    assert one.take(lambda lost, why: heard.append((lost, why))) is None
    assert heard == [(gone, fail.REASON_ANSWER_LOST)]


def test_what_rests_can_be_withdrawn() -> None:
    one, resting = queue(), call()
    one.rest([resting])
    assert one.withdraw(resting)
    assert not one.withdraw(resting)
    one.again([resting])
    assert one.take(unheard) is None


def test_withdrawing_gives_the_room_back() -> None:
    one, waits = queue(), call(3)
    one.submit(waits)
    one.withdraw(waits)
    one.withdraw(waits)
    assert (one.items, one.bytes) == (0, 0)
    assert one.take(unheard) is None


@pytest.mark.parametrize("limits", [{"max_items": 10}, {"max_bytes": 700}])
def test_a_full_queue_refuses_and_keeps_what_it_has(limits: dict[str, int]) -> None:
    one = queue(**limits)
    for _ in range(10):
        one.submit(call())
    big = call(11, 60)
    with pytest.raises(FailureError, match="OVERLOADED"):
        one.submit(big)
    batch = one.take(unheard)
    assert batch is not None
    assert batch.items >= 10


def test_calls_are_refused_at_once_while_no_adapter_can_be_reached() -> None:
    one = Coalescer(10, 10_000, lambda: FailureError(fail.REASON_UPSTREAM_UNREACHABLE))
    with pytest.raises(FailureError, match="UPSTREAM_UNREACHABLE"):
        one.submit(call())
    assert one.items == 0


def test_closing_refuses_what_never_left_and_calls_the_rest_unknown() -> None:
    """A signed call that waited for its second try was refused with the others, and one that came
    back later waited for ever.
    """
    one, fresh, queued, resting, heard = queue(), call(), call(), call(), []
    one.submit(fresh)
    for sent in (queued, resting):
        sent.journalled = sent.sent = True
    one.rest([queued, resting])
    one.again([queued])
    one.fail_all(FailureError(fail.REASON_DRAINING), lambda lost, why: heard.append((lost, why)))
    assert fresh.answer.error.reason == fail.REASON_DRAINING
    assert heard == [(queued, fail.REASON_ANSWER_LOST), (resting, fail.REASON_ANSWER_LOST)]
    one.again([resting])
    assert one.take(unheard) is None
    assert (one.items, one.bytes) == (0, 0)
    with pytest.raises(FailureError, match="DRAINING"):
        one.submit(call())


def test_what_is_sent_again_goes_first() -> None:
    one, lost, new = queue(), call(), call()
    one.submit(new)
    one.rest([lost])
    one.again([lost])
    batch = one.take(unheard)
    assert batch is not None
    assert batch.calls == [lost, new]


@given(
    st.lists(
        st.tuples(st.integers(1, 1024), st.integers(0, 4000), st.integers(0, 400)), max_size=40
    )
)
def test_no_batch_breaks_a_bound_and_nothing_is_lost_or_reordered(
    shapes: list[tuple[int, int, int]],
) -> None:
    one = queue(1 << 20, 1 << 30)
    calls = [
        call(items, min(size, BATCH_BYTES // (items * 2)), protocol=f"p{protocol}")
        for items, size, protocol in shapes
    ]
    for each in calls:
        one.submit(each)
    taken = []
    while (batch := one.take(unheard)) is not None:
        assert batch.items <= bounds.MAX_BATCH_ITEMS
        assert len(batch.groups) <= 256
        assert batch.request(1).ByteSize() < bounds.MAX_MESSAGE_BYTES
        taken += batch.calls
    assert taken == calls
    assert (one.items, one.bytes) == (0, 0)


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from(["a", "b", "c"])), min_size=1, max_size=12
    )
)
def test_every_call_gets_its_own_items_back(shapes: list[tuple[int, str]]) -> None:
    calls = [call(items, protocol=protocol) for items, protocol in shapes]
    for number, each in enumerate(calls):
        each.intents = [b"%08d%08d" % (number, at) for at in range(len(each.intents))]
    batch = Batch(calls)
    response = signing_pb2.SignResponse()
    for group in batch.request(1).groups:
        response.groups.add(
            items=[
                types.SignedItem(signatures=[types.Signature(value=item.intent_id)])
                for item in group.items
            ]
        )
    answers = batch.answers(response)
    assert len(answers) == len(calls)
    for each, answer in answers:
        assert [only(item) for item in answer.items] == list(each.intents)


@pytest.mark.parametrize("groups", [[], [1], [2, 2], [3], [2, 1]])
def test_an_answer_of_another_shape_is_none(groups: list[int]) -> None:
    batch = Batch([call(2)])
    response = signing_pb2.SignResponse()
    for count in groups:
        response.groups.add(items=[types.SignedItem()] * count)
    with pytest.raises(ValueError, match="wrong number"):
        batch.answers(response)


async def test_a_real_future_is_answered_once() -> None:
    future: Any = asyncio.get_running_loop().create_future()
    one = call()
    one.answer = future
    one.fail(FailureError(fail.REASON_ANSWER_LATE))
    one.fail(FailureError(fail.REASON_ANSWER_LOST))
    with pytest.raises(FailureError, match="ANSWER_LATE"):
        await future


@pytest.mark.parametrize("token", [400, 4096])
@pytest.mark.parametrize(("items", "size"), [(1, 32), (1, 65_536), (64, 64), (1024, 150)])
def test_no_batch_is_larger_than_what_every_adapter_takes(token, items, size):
    """Handles and contexts count too: 256 long handles alone are a megabyte."""
    full, sent = queue(max_items=1 << 20, max_bytes=1 << 30), 0
    calls = []
    for number in range(300):
        holder = held(f"h{number}")
        holder.token = bytes(token)
        calls.append(call(items, size, of=holder))
        full.submit(calls[-1])
    while (batch := full.take(unheard)) is not None:
        assert batch.request(1).ByteSize() <= bounds.ADAPTER_REQUEST_BYTES
        sent += len(batch.calls)
    assert sent == len(calls)


def test_while_several_sockets_sign_nobody_has_every_stream_nor_a_large_batch() -> None:
    """1,024 items a call on one container's socket left its neighbour 2 % of its rate."""
    one, first, second = queue(), Stream(), Stream()
    greedy, modest = held("greedy"), held("modest")
    for stream in (first, second):
        assert one.take(unheard, stream) is None
    asked = call(of=modest)
    one.submit(asked)
    batch = one.take(unheard, first)
    assert batch is not None
    assert batch.calls == [asked]
    for _ in range(40):
        one.submit(call(CROWDED_ITEMS // 2, of=greedy))
    batch = one.take(unheard, first)
    assert batch is not None
    assert batch.items == CROWDED_ITEMS
    assert one.take(unheard, second) is None  # kept for the others
    again = call(of=modest)
    one.submit(again)
    batch = one.take(unheard, second)
    assert batch is not None
    assert batch.calls == [again]


def test_who_has_waited_for_long_is_still_there() -> None:
    """On a busy machine a call waited for more than the second for which its socket counted: its
    neighbour had batches of 1,024 and all streams again, and it waited longer still.
    """
    one = queue()
    asked = call(of=held("modest"))
    asked.queued_at -= 60
    one.submit(asked)
    assert not one.crowded
    one.submit(call(512, of=held("greedy")))
    assert one.crowded
    assert one.piece_items == CROWDED_ITEMS


def test_a_socket_that_signs_alone_has_all_streams_and_whole_batches() -> None:
    one, first, second = queue(), Stream(), Stream()
    assert one.piece_items == bounds.MAX_BATCH_ITEMS
    for _ in range(4):
        one.submit(call(512))
    for stream in (first, second):
        batch = one.take(unheard, stream)
        assert batch is not None
        assert batch.items == 1024


def test_a_socket_has_no_more_than_half_of_the_queue_while_others_sign_too() -> None:
    one = queue(max_items=100)
    greedy, modest = held("greedy"), held("modest")
    for _ in range(10):
        one.submit(call(10, of=greedy))
    with pytest.raises(FailureError, match="OVERLOADED"):
        one.submit(call(of=modest))
    batch = one.take(unheard)
    assert batch is not None
    with pytest.raises(FailureError, match="OVERLOADED"):
        one.submit(call(10, of=greedy))
    one.submit(call(of=modest))
