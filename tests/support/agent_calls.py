"""Calls of an application, and what an adapter was told of them."""

from __future__ import annotations

from typing import Any

import grpc
from capsign_evidence import told_calls
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import signing_pb2
from support.fake_adapter import FakeAdapter


def group(
    handle: str, *messages: bytes, algorithm: int = alg.ALGORITHM_ED25519, **more: Any
) -> agent_pb2.SignGroup:
    items = [agent_pb2.SignItem(intent_id=new_intent_id(), message=message) for message in messages]
    return agent_pb2.SignGroup(handle_id=handle, algorithm=algorithm, items=items, **more)


async def batch(
    stub: Any, *groups: agent_pb2.SignGroup, **more: Any
) -> list[signing_pb2.SignedGroup]:
    return list((await stub.SignBatch(agent_pb2.SignBatchRequest(groups=groups), **more)).groups)


async def one(
    stub: Any,
    handle: str,
    *,
    timeout: float | None = None,  # noqa: ASYNC109
    **more: Any,
) -> agent_pb2.SignResponse | FailureError:
    [item] = group(handle, b"message", **more).items
    request = agent_pb2.SignRequest(
        handle_id=handle, algorithm=more.get("algorithm", alg.ALGORITHM_ED25519), item=item
    )
    try:
        return await stub.Sign(request, timeout=timeout)
    except grpc.aio.AioRpcError as error:
        told = FailureError.from_rpc(error)
        if told is None:
            raise
        return told


def reason(answer: agent_pb2.SignResponse | FailureError) -> int:
    assert isinstance(answer, FailureError)
    return answer.reason


def outcomes(adapter: FakeAdapter) -> list[int]:
    return [
        record.outcome
        for record in adapter.records
        if record.kind == evidence_pb2.AUDIT_KIND_OUTCOME
        for _ in told_calls.intents(record)
    ]


def intents(adapter: FakeAdapter) -> list[bytes]:
    return [
        intent_id
        for record in adapter.records
        if record.kind == evidence_pb2.AUDIT_KIND_INTENT
        for intent_id in told_calls.intents(record)
    ]
