"""What a caller hears, and what is written down, when the way to the adapter breaks at each of its
places.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, NoReturn

import grpc.aio
import pytest
from capsign_agent.agent import Agent
from capsign_agent.identity.credentials import Credentials
from capsign_agent.identity.source import IdentitySource
from capsign_wire.adapter.v1 import evidence_pb2, signing_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.tracing import PassingTracer
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from capsign_wire.types.v1 import signing_pb2 as types
from support.agent_calls import batch, group, intents, one, outcomes, reason
from support.agent_home import Home, first_handle, running, until
from support.fake_adapter import BreakError, FakeAdapter, Grant
from support.signed import only, only_of


async def test_an_answer_lost_once_is_fetched_by_sending_the_same_intents_again(
    place: Home, adapter: FakeAdapter
) -> None:
    """The batch was signed and stored, then the stream broke. The second copy gives the stored
    bytes: one signature.
    """
    broken: list[Any] = []

    def break_once(_: signing_pb2.SignRequest) -> None:
        if not broken:
            broken.append(1)
            raise BreakError

    adapter.faults.before_answer = break_once
    async with running(place):
        stub = place.stub()
        [signed] = await batch(stub, group((await first_handle(stub)).id, b"a", b"b"))
    assert all(item.signatures for item in signed.items)
    assert adapter.signed == 2
    assert len(adapter.requests) == 2
    assert len(intents(adapter)) == 2
    assert outcomes(adapter) == [fail.OUTCOME_DONE] * 2


async def test_a_replica_that_dies_with_all_its_streams_costs_no_unknown(
    place: Home, adapter: FakeAdapter
) -> None:
    """The batch was signed, then everything broke at once and came back. A try on the sibling
    stream would be lost as well.
    """
    restarted = threading.Event()

    def restart() -> None:
        adapter.stop()
        adapter.start()
        restarted.set()

    def die_once(_: signing_pb2.SignRequest) -> None:
        if len(adapter.requests) == 1:
            threading.Thread(target=restart).start()
            restarted.wait(10)

    adapter.faults.before_answer = die_once
    async with running(place):
        stub = place.stub()
        assert isinstance(await one(stub, (await first_handle(stub)).id), agent_pb2.SignResponse)
    assert adapter.signed == 1
    assert outcomes(adapter) == [fail.OUTCOME_DONE]


async def test_an_answer_lost_twice_is_unknown_and_resolving_gives_the_signature(
    place: Home, adapter: FakeAdapter
) -> None:
    def always(_: signing_pb2.SignRequest) -> None:
        raise BreakError

    adapter.faults.before_answer = always
    async with running(place):
        stub = place.stub()
        handle = (await first_handle(stub)).id
        asked = group(handle, b"a")
        [signed] = await batch(stub, asked)
        assert signed.items[0].failure.reason == fail.REASON_ANSWER_LOST
        resolve = agent_pb2.ResolveIntentRequest(
            handle_id=handle, intent_id=asked.items[0].intent_id
        )
        resolved = await stub.ResolveIntent(resolve)
        assert only_of(resolved.done) == only(adapter.ledger[asked.items[0].intent_id][1])
    assert outcomes(adapter) == [fail.OUTCOME_UNKNOWN, fail.OUTCOME_DONE]


async def test_a_refusal_of_a_second_copy_does_not_hide_that_the_first_was_done(
    place: Home, adapter: FakeAdapter
) -> None:
    """First copy signed, answer lost; the second copy meets a refusal. "It will not happen" would
    be a lie: it is unknown.
    """
    seen: list[Any] = []

    def lose_first(_: signing_pb2.SignRequest) -> None:
        if not seen:
            seen.append(1)
            adapter.faults.refuse_item = lambda *_: fail.REASON_TOKEN_UNAVAILABLE
            raise BreakError

    adapter.faults.before_answer = lose_first
    async with running(place):
        stub = place.stub()
        answer = await one(stub, (await first_handle(stub)).id)
    assert reason(answer) == fail.REASON_ANSWER_LOST
    assert adapter.signed == 1


async def test_an_answer_that_comes_too_late_is_unknown_first_and_still_recorded(
    place: Home, adapter: FakeAdapter
) -> None:
    gate = threading.Event()
    adapter.faults.before_answer = lambda _: gate.wait(10) and None
    async with running(place):
        stub = place.stub()
        handle = (await first_handle(stub)).id
        call = stub.SignStream()
        await call.write(
            agent_pb2.SignStreamRequest(call_id=1, groups=[group(handle, b"a")], timeout_ms=100)
        )
        answer = await call.read()
        assert answer.groups[0].items[0].failure.reason == fail.REASON_ANSWER_LATE
        gate.set()
        await until(lambda: outcomes(adapter) == [fail.OUTCOME_UNKNOWN, fail.OUTCOME_DONE])
        call.cancel()


async def both_streams_busy(
    agent: Agent, adapter: FakeAdapter, call: Callable[[], Coroutine[Any, Any, Any]]
) -> list[asyncio.Task[Any]]:
    """Calls that the adapter has, one on each stream. Begun together they may be one batch."""
    await until(lambda: agent.coalescer.idle_streams == 2)
    busy = []
    for number in range(2):
        busy.append(asyncio.create_task(call()))
        await until(lambda number=number: len(adapter.requests) == number + 1)
    return busy


async def test_what_never_left_is_unavailable_and_not_unknown(
    place: Home, adapter: FakeAdapter
) -> None:
    """Both streams are busy for good; a call that waits behind them was not sent, and is not sent
    after its deadline.
    """
    gate = threading.Event()
    adapter.faults.before_answer = lambda _: gate.wait(10) and None
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        busy = await both_streams_busy(agent, adapter, lambda: one(stub, handle))
        call = stub.SignStream()
        await call.write(
            agent_pb2.SignStreamRequest(call_id=1, groups=[group(handle, b"late")], timeout_ms=100)
        )
        answer = await call.read()
        assert answer.groups[0].items[0].failure.reason == fail.REASON_UPSTREAM_UNREACHABLE
        gate.set()
        assert all(isinstance(done, agent_pb2.SignResponse) for done in await asyncio.gather(*busy))
        call.cancel()
    assert len(adapter.ledger) == 2


async def test_calls_gather_while_the_streams_are_busy(place: Home, adapter: FakeAdapter) -> None:
    gate = threading.Event()
    adapter.faults.before_answer = lambda _: gate.wait(10) and None
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        calls = [asyncio.create_task(one(stub, handle)) for _ in range(60)]
        await until(
            lambda: (
                len(adapter.requests) == 2
                and agent.coalescer.items == 60 - sum(map(_items, adapter.requests))
            )
        )
        gate.set()
        done = await asyncio.gather(*calls)
    assert all(isinstance(signed, agent_pb2.SignResponse) for signed in done)
    assert len(adapter.requests) <= 4
    assert sum(map(_items, adapter.requests)) == 60
    assert all(len(request.groups) == 1 for request in adapter.requests)


def _items(request: signing_pb2.SignRequest) -> int:
    return sum(len(one.items) for one in request.groups)


async def test_a_caller_that_leaves_takes_back_what_was_not_sent(
    place: Home, adapter: FakeAdapter
) -> None:
    gate = threading.Event()
    adapter.faults.before_answer = lambda _: gate.wait(10) and None
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        busy = await both_streams_busy(agent, adapter, lambda: one(stub, handle))
        waiting = asyncio.create_task(one(stub, handle))
        await until(lambda: agent.coalescer.items == 1)
        waiting.cancel()
        await until(lambda: agent.coalescer.items == 0)
        gate.set()
        await asyncio.gather(*busy)
    assert len(adapter.ledger) == 2


@pytest.mark.parametrize(
    ("again_after_s", "queued"),
    [(0.05, 1), (60.0, 0)],
    ids=["queued again", "not yet queued again"],
)
async def test_a_caller_that_leaves_between_two_tries_leaves_an_outcome_on_record(
    again_after_s: float, queued: int, place: Home, adapter: FakeAdapter
) -> None:
    """Signed, answer lost, caller gone before the second try: no outcome was written, its room in
    the journal stayed taken.
    """
    place.hurry(second_try_s=again_after_s)
    dying = adapter.die_instead_of_answering()
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        asked = asyncio.create_task(one(stub, handle))
        await until(lambda: adapter.signed and agent.reach.connected == 0)
        await until(lambda: agent.coalescer.items == queued)
        assert agent.journal.promised
        asked.cancel()
        await until(lambda: agent.calls_in_flight.count == 0)
        adapter.faults.before_answer = lambda _: None
        await asyncio.to_thread(dying.join)
        adapter.start()
        await until(lambda: not agent.faults())
        assert isinstance(await one(stub, handle), agent_pb2.SignResponse)
        assert not agent.journal.promised
    assert outcomes(adapter) == [fail.OUTCOME_UNKNOWN, fail.OUTCOME_DONE]
    assert len(intents(adapter)) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda response: response.groups[0].items.pop() and response,
        lambda response: response.groups.pop() and response,
        lambda response: _set_signatures(response, types.Signature(value=b"x" * 65)),
        lambda response: _set_signatures(response),
        lambda response: _set_signatures(response, types.Signature(value=b"x" * 64, key=1)),
        lambda response: _set_key(response, algorithm=alg.ALGORITHM_ES256),
        lambda response: _set_key(response, algorithm=99),
        lambda response: (
            response.groups[0].items[0].signatures.add(value=b"s" * 64, key=1) and response
        ),
        lambda response: _set(response, failure=fail.Failure(reason=fail.REASON_INTERNAL)),
        lambda response: response.groups[0].ClearField("signed_by") or response,
        lambda response: _set_key(response, custody=alg.CUSTODY_CLASS_UNSPECIFIED),
    ],
)
async def test_an_answer_that_breaks_a_promise_is_no_answer(
    spoil: Any, place: Home, adapter: FakeAdapter
) -> None:
    adapter.faults.answer = spoil
    async with running(place) as agent:
        stub = place.stub()
        answer = await one(stub, (await first_handle(stub)).id)
        assert reason(answer) == fail.REASON_INTERNAL
        assert sum(agent.metrics.counters["capsign.invariant.violations"].cells.values()) == 1
    assert outcomes(adapter) == [fail.OUTCOME_UNKNOWN]


def _set(response: signing_pb2.SignResponse, **fields: Any) -> signing_pb2.SignResponse:
    response.groups[0].items[0].MergeFrom(types.SignedItem(**fields))
    return response


def _set_signatures(
    response: signing_pb2.SignResponse, *signatures: types.Signature
) -> signing_pb2.SignResponse:
    item = response.groups[0].items[0]
    item.ClearField("signatures")
    item.signatures.extend(signatures)
    return response


def _set_key(response: signing_pb2.SignResponse, **fields: Any) -> signing_pb2.SignResponse:
    for name, value in fields.items():
        setattr(response.groups[0].signed_by[0], name, value)
    return response


async def test_an_item_may_carry_two_signatures_each_under_its_own_key(
    place: Home, adapter: FakeAdapter
) -> None:
    """As a rollout has it that signs with two key versions; one item came under the older alone."""

    def both(response: signing_pb2.SignResponse) -> signing_pb2.SignResponse:
        [told] = response.groups
        told.signed_by.add().CopyFrom(told.signed_by[0])
        told.signed_by[1].kid, told.signed_by[1].version = "second", 2
        told.items[0].signatures.add(value=b"s" * 64, key=1)
        return response

    adapter.faults.answer = both
    async with running(place):
        stub = place.stub()
        [signed] = await batch(stub, group((await first_handle(stub)).id, b"a", b"b"))
    assert [len(item.signatures) for item in signed.items] == [2, 1]
    assert [signed.signed_by[one.key].version for one in signed.items[0].signatures] == [1, 2]
    assert outcomes(adapter) == [fail.OUTCOME_DONE] * 2


async def test_an_answer_for_another_batch_breaks_the_stream(
    place: Home, adapter: FakeAdapter
) -> None:
    def other(response: signing_pb2.SignResponse) -> signing_pb2.SignResponse:
        response.batch_id += 7
        return response

    adapter.faults.answer = other
    async with running(place):
        stub = place.stub()
        assert reason(await one(stub, (await first_handle(stub)).id)) == fail.REASON_ANSWER_LOST


async def test_a_batch_that_fails_as_a_whole_gives_its_reason_to_every_item(
    place: Home, adapter: FakeAdapter
) -> None:
    failure = FailureError(fail.REASON_STORE_UNAVAILABLE).to_item()
    adapter.faults.answer = lambda response: signing_pb2.SignResponse(
        batch_id=response.batch_id, failure=failure
    )
    async with running(place):
        stub = place.stub()
        [signed] = await batch(stub, group((await first_handle(stub)).id, b"a", b"b"))
    assert [item.failure.reason for item in signed.items] == [fail.REASON_STORE_UNAVAILABLE] * 2
    assert outcomes(adapter) == [fail.OUTCOME_UNAVAILABLE] * 2


async def test_a_reason_from_a_newer_adapter_is_counted_as_what_it_is_read_as(
    place: Home, adapter: FakeAdapter
) -> None:
    """The adapter gave a reason that this agent does not know: counting it raised, and the whole
    call was in no counter.
    """
    unknown: Any = 9999

    def refuse_second(response: signing_pb2.SignResponse) -> signing_pb2.SignResponse:
        response.groups[0].items[1].CopyFrom(types.SignedItem(failure=fail.Failure(reason=unknown)))
        return response

    adapter.faults.answer = refuse_second
    async with running(place) as agent:
        stub = place.stub()
        [signed] = await batch(stub, group((await first_handle(stub)).id, b"a", b"new"))
        assert signed.items[1].failure.reason == unknown
        calls = agent.metrics.counters["capsign.calls"].cells
        await until(lambda: sum(calls.values()) == 2, seconds=2)
        assert {labels: count for labels, count in calls.items() if count} == {
            ("done", "NONE"): 1,
            ("unknown", "INTERNAL"): 1,
        }
    assert sorted(outcomes(adapter)) == sorted([fail.OUTCOME_DONE, fail.OUTCOME_UNKNOWN])


async def test_one_bad_item_does_not_fail_its_neighbours(place: Home, adapter: FakeAdapter) -> None:
    adapter.faults.refuse_item = lambda _, item: (
        fail.REASON_INTENT_CONFLICT if item.input == b"bad" else 0
    )
    async with running(place):
        stub = place.stub()
        [signed] = await batch(stub, group((await first_handle(stub)).id, b"a", b"bad", b"c"))
    assert [item.failure.reason for item in signed.items] == [0, fail.REASON_INTENT_CONFLICT, 0]
    assert [bool(item.signatures) for item in signed.items] == [True, False, True]
    assert signed.signed_by[0].kid


async def test_an_answer_may_be_many_times_its_request(place: Home, adapter: FakeAdapter) -> None:
    """A thousand ML-DSA signatures, each with an attestation, are 8 MiB: they were signed, and then
    no agent could take them.
    """

    def attested(response: signing_pb2.SignResponse) -> signing_pb2.SignResponse:
        (made_under,) = response.groups[0].signed_by
        for key, item in enumerate(response.groups[0].items):
            item.signatures[0].key = key
            response.groups[0].signed_by.append(made_under)
            response.groups[0].signed_by[key].attestation = b"a" * 8192
        return response

    adapter.faults.answer = attested
    async with running(place):
        stub = place.stub()
        [signed] = await batch(stub, group((await first_handle(stub)).id, *[b"m"] * 1024))
    assert signed.ByteSize() > 8 * 1024 * 1024
    assert all(item.signatures for item in signed.items)


async def test_a_key_that_moves_under_ml_dsa_is_fetched_and_the_call_repeated_once(
    place: Home, adapter: FakeAdapter
) -> None:
    async with running(place):
        stub = place.stub()
        handle = (await first_handle(stub)).id
        first = await one(stub, handle, algorithm=alg.ALGORITHM_ML_DSA_65)
        assert isinstance(first, agent_pb2.SignResponse)
        adapter.rotate(alg.ALGORITHM_ML_DSA_65)
        second = await one(stub, handle, algorithm=alg.ALGORITHM_ML_DSA_65)
        assert isinstance(second, agent_pb2.SignResponse)
        assert second.signed.signed_by[0].kid != first.signed.signed_by[0].kid
        check = agent_pb2.VerifyRequest(
            handle_id=handle,
            algorithm=alg.ALGORITHM_ML_DSA_65,
            message=b"message",
            signature=only_of(second.signed),
        )
        assert (await stub.Verify(check)).key.kid == second.signed.signed_by[0].kid
        adapter.faults.refuse_item = lambda *_: fail.REASON_KEY_SUPERSEDED
        assert (
            reason(await one(stub, handle, algorithm=alg.ALGORITHM_ML_DSA_65))
            == fail.REASON_KEY_SUPERSEDED
        )
    assert len(adapter.requests) == 5


async def test_a_caller_that_leaves_while_a_moved_key_is_fetched_has_nothing_sent(
    place: Home, adapter: FakeAdapter
) -> None:
    """Two groups, both keys moved: the first was sent again while the second key was fetched, and
    its caller then left. It was signed for nobody; where no adapter could be reached, it would have
    waited without a deadline.
    """
    fetched: list[None] = []
    reached, gate = threading.Event(), threading.Event()

    def hang_at_the_fourth() -> None:
        fetched.append(None)
        if len(fetched) == 4:
            reached.set()
            gate.wait(20)

    adapter.faults.before_keys = hang_at_the_fourth
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id

        def groups() -> list[agent_pb2.SignGroup]:
            suffixes = [types.ContextSuffix(transcript=bytes([n]) * 32) for n in range(2)]
            return [
                group(handle, b"m", algorithm=alg.ALGORITHM_ML_DSA_65, context=suffix)
                for suffix in suffixes
            ]

        await batch(stub, *groups())
        adapter.rotate(alg.ALGORITHM_ML_DSA_65)
        asked = asyncio.create_task(batch(stub, *groups()))
        await until(reached.is_set)
        asked.cancel()
        await until(lambda: agent.calls_in_flight.count == 0)
        gate.set()
        assert isinstance(await one(stub, handle), agent_pb2.SignResponse)
    assert adapter.signed == 3, "two before the keys moved, and the last"


async def test_a_replica_that_dies_is_replaced_by_the_other(
    place: Home, adapter: FakeAdapter
) -> None:
    other = FakeAdapter(place.ca)
    other.mint, other.ledger, other.keys_by_context, other.boots = (
        adapter.mint,
        adapter.ledger,
        adapter.keys_by_context,
        adapter.boots,
    )
    other.start()
    place.ports = (adapter.port, other.port)
    try:
        async with running(place):
            stub = place.stub()
            handle = (await first_handle(stub)).id
            await asyncio.gather(*(one(stub, handle) for _ in range(20)))
            adapter.stop()
            done = await asyncio.gather(*(one(stub, handle) for _ in range(20)))
            assert all(isinstance(signed, agent_pb2.SignResponse) for signed in done)
            assert other.requests
    finally:
        other.stop()


async def test_over_a_restart_calls_wait_and_after_a_while_they_are_refused_at_once(
    place: Home, adapter: FakeAdapter
) -> None:
    place.upstream = "unreachable_after_ms = 300"
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        adapter.stop()
        await until(lambda: agent.reach.connected == 0)
        await until(lambda: agent.connections.refusing() is not None)
        assert reason(await one(stub, handle)) == fail.REASON_UPSTREAM_UNREACHABLE
        assert "no_upstream" in agent.faults()
        adapter.start()
        await until(lambda: not agent.faults())
        assert isinstance(await one(stub, handle), agent_pb2.SignResponse)


async def test_a_rate_is_kept_item_by_item(place: Home, adapter: FakeAdapter) -> None:
    adapter.grants = {"tokens": Grant(rate=1, burst=4)}
    async with running(place):
        stub = place.stub()
        [signed] = await batch(stub, group((await first_handle(stub)).id, *[b"m"] * 8))
    assert sum(bool(item.signatures) for item in signed.items) == 4
    limited = [item.failure for item in signed.items if not item.signatures]
    assert {one.reason for one in limited} == {fail.REASON_RATE_LIMITED}
    assert all(one.retry_after_ms > 0 for one in limited)
    assert len(intents(adapter)) == 4


async def test_an_adapter_that_hangs_leaves_time_for_a_second_try(
    place: Home, adapter: FakeAdapter
) -> None:
    """Signed and stored, then silence on that stream: after half of the timeout the other stream
    fetches the stored bytes.
    """
    seen: list[Any]
    gate, seen = threading.Event(), []

    def hang_once(_: signing_pb2.SignRequest) -> None:
        if not seen:
            seen.append(1)
            gate.wait(20)

    adapter.faults.before_answer = hang_once
    place.upstream = "timeout_ms = 4000"
    async with running(place):
        stub = place.stub()
        assert isinstance(await one(stub, (await first_handle(stub)).id), agent_pb2.SignResponse)
        gate.set()
    assert len(adapter.requests) == 2
    assert adapter.signed == 1
    assert outcomes(adapter) == [fail.OUTCOME_DONE]


class DefectiveSource:
    """Gives the identity of another source, and then has a defect."""

    def __init__(self, good: IdentitySource) -> None:
        self._good = good

    async def changes(self) -> AsyncGenerator[Credentials, None]:
        async with contextlib.aclosing(self._good.changes()) as changes:
            yield await anext(changes)
        raise ValueError("a defect")

    def authorities_changed(self, sequence: int) -> None:
        self._good.authorities_changed(sequence)


async def test_a_part_that_fails_ends_the_agent_and_says_so(
    place: Home, adapter: FakeAdapter
) -> None:
    agent = Agent(place.config())
    agent.source = DefectiveSource(agent.source)
    assert await asyncio.wait_for(agent.run(), 20) is False
    assert adapter.records[-1].kind == evidence_pb2.AUDIT_KIND_CLOSE


async def test_a_defect_says_internal_and_nothing_of_itself(
    place: Home, adapter: FakeAdapter
) -> None:
    class BrokenTracer(PassingTracer):
        def span(self, *_: Any, **__: Any) -> NoReturn:
            raise ValueError("secret text")

    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        agent.servers.trace_with(BrokenTracer())
        answer = await one(stub, handle)
        assert reason(answer) == fail.REASON_INTERNAL
        assert isinstance(answer, FailureError)
        assert "secret" not in answer.detail


async def test_verify_asks_again_before_it_says_no(place: Home, adapter: FakeAdapter) -> None:
    """The key was rotated after the agent had fetched it: a good signature must not be called bad
    for it.
    """
    place.hurry(keys_fresh_s=0.0)
    async with running(place):
        stub = place.stub()
        handle = (await first_handle(stub)).id
        check = agent_pb2.VerifyRequest(
            handle_id=handle, algorithm=alg.ALGORITHM_ED25519, message=b"message"
        )
        first = await one(stub, handle)
        assert isinstance(first, agent_pb2.SignResponse)
        check.signature = only_of(first.signed)
        await stub.Verify(check)
        adapter.rotate(alg.ALGORITHM_ED25519)
        second = await one(stub, handle)
        assert isinstance(second, agent_pb2.SignResponse)
        check.signature = only_of(second.signed)
        assert (await stub.Verify(check)).key.kid == second.signed.signed_by[0].kid
        check.signature = only_of(first.signed)
        assert (await stub.Verify(check)).key.kid == first.signed.signed_by[0].kid


async def test_verify_knows_a_key_that_signs_since_it_was_fetched(
    place: Home, adapter: FakeAdapter
) -> None:
    """It was published when the agent fetched it a moment ago, and a rollout went on: what it
    signed then was called bad for a second. While it does not sign, nothing verifies under it.
    """
    adapter.newest_state = types.KEY_STATE_PRE_ACTIVATION
    async with running(place):
        stub = place.stub()
        handle = (await first_handle(stub)).id
        made = await one(stub, handle)
        assert isinstance(made, agent_pb2.SignResponse)
        check = agent_pb2.VerifyRequest(
            handle_id=handle,
            algorithm=alg.ALGORITHM_ED25519,
            message=b"message",
            signature=only_of(made.signed),
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Verify(check)
        failure = FailureError.from_rpc(caught.value)
        assert failure is not None
        assert failure.reason == fail.REASON_SIGNATURE_INVALID
        adapter.newest_state = types.KEY_STATE_ACTIVE
        assert (await stub.Verify(check)).key.kid == made.signed.signed_by[0].kid


async def test_resolving_an_intent_that_never_was_is_final(
    place: Home, adapter: FakeAdapter
) -> None:
    async with running(place):
        stub = place.stub()
        handle = (await first_handle(stub)).id
        late = group(handle, b"late")
        resolve = agent_pb2.ResolveIntentRequest(
            handle_id=handle, intent_id=late.items[0].intent_id
        )
        assert (await stub.ResolveIntent(resolve)).HasField("never")
        [signed] = await batch(stub, late)
        assert signed.items[0].failure.reason == fail.REASON_INTENT_NEVER


async def test_streams_with_nothing_to_do_are_opened_anew_and_nobody_notices(
    place: Home, adapter: FakeAdapter
) -> None:
    """An adapter ends a stream that is silent for long, because it may hold half a message: ours
    never come to that.
    """
    place.hurry(stream_idle_s=0.05)
    async with running(place):
        stub = place.stub()
        handle = (await first_handle(stub)).id
        for opened in (4, 6, 8):
            await until(lambda opened=opened: adapter.streams >= opened)
            assert isinstance(await one(stub, handle), agent_pb2.SignResponse)
    assert set(outcomes(adapter)) == {fail.OUTCOME_DONE}
