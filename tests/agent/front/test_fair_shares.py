"""What one container asks too much of waits; its neighbours and its own other calls do not."""

from __future__ import annotations

import asyncio
import threading

from capsign_agent.sign.lookup_limit import AT_ONCE
from capsign_agent.sign.refusals import REFUSALS_AT_ONCE
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import signing_pb2 as types
from support.agent_home import Home, first_handle, running, until
from support.fake_adapter import FakeAdapter


def group(handle_id: str, *, protocol: str = "", items: int = 1) -> agent_pb2.SignGroup:
    asked = [agent_pb2.SignItem(intent_id=new_intent_id(), message=b"m") for _ in range(items)]
    context = types.ContextSuffix(protocol=protocol)
    return agent_pb2.SignGroup(
        handle_id=handle_id, algorithm=alg.ALGORITHM_ES256, context=context, items=asked
    )


async def test_who_is_refused_without_end_gets_the_word_later_and_good_calls_do_not(
    place: Home, adapter: FakeAdapter
) -> None:
    """A flood of refusals on one container's socket left its neighbour 7 % of its rate."""
    place.hurry(refusal_later_s=20.0)
    async with running(place):
        stub = place.stub()
        handle = await first_handle(stub)
        refused = agent_pb2.SignBatchRequest(
            groups=[group(handle.id, protocol="elsewhere", items=REFUSALS_AT_ONCE)]
        )
        answer = await stub.SignBatch(refused)
        assert not any(one.items[0].signatures for one in answer.groups)
        later = asyncio.ensure_future(stub.SignBatch(refused))
        good = await stub.SignBatch(agent_pb2.SignBatchRequest(groups=[group(handle.id)]))
        assert good.groups[0].items[0].signatures
        assert not later.done()
        later.cancel()


async def test_questions_of_one_socket_go_to_the_adapter_some_at_a_time(
    place: Home, adapter: FakeAdapter
) -> None:
    """They share the way to the adapter, and its patience with this pod, with the other sockets."""
    asked: list[threading.Event] = []

    def hang() -> None:
        asked.append(threading.Event())
        asked[-1].wait(20)

    adapter.faults.before_keys = hang
    async with running(place):
        stub = place.stub()
        handle = await first_handle(stub)
        calls = [
            asyncio.ensure_future(
                stub.GetPublicKeys(
                    agent_pb2.GetPublicKeysRequest(
                        handle_id=handle.id,
                        algorithm=alg.ALGORITHM_ES256,
                        context=types.ContextSuffix(transcript=bytes([number]) * 32),
                    )
                )
            )
            for number in range(AT_ONCE + 2)
        ]
        await until(lambda: len(asked) == AT_ONCE)
        good = await stub.SignBatch(agent_pb2.SignBatchRequest(groups=[group(handle.id)]))
        assert good.groups[0].items[0].signatures
        assert len(asked) == AT_ONCE
        asked[0].set()
        await until(lambda: len(asked) == AT_ONCE + 1)
        for call in calls:
            call.cancel()
        adapter.faults.before_keys = lambda: None
        for one in asked:
            one.set()
