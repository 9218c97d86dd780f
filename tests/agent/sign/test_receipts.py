"""Receipts through the agent: asked of the adapter by intent, and passed on as they are."""

from __future__ import annotations

import pytest
from capsign_agent.handles.socket_handles import SocketHandles
from capsign_agent.sign.lookup_limit import RECEIPT_US, LookupLimit
from capsign_agent.sign.lookups import Lookups
from capsign_agent.timing import Timing
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2


class Adapter:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[evidence_pb2.GetReceiptRequest] = []

    async def receipt(self, request, timeout_s):
        self.asked.append(request)
        return evidence_pb2.GetReceiptResponse(receipt=b"text", entry=b"entry", verifier_key="key")


class Counting(LookupLimit):
    """Notes what is charged."""

    def __init__(self) -> None:
        super().__init__()
        self.charged: list[tuple[str, int]] = []

    async def ask_adapter(self, socket: str, cost_us: int) -> None:
        self.charged.append((socket, cost_us))


async def test_a_receipt_is_asked_of_the_adapter() -> None:
    adapter, limit = Adapter(), Counting()
    lookups = Lookups(adapter, None, None, None, None, limit, Timing())
    intent = new_intent_id()
    request = agent_pb2.GetReceiptRequest(intent_id=intent, leaf_index=7)
    told = await lookups.receipt(SocketHandles("app", (), None), request, 1.0)
    assert (told.receipt, told.entry, told.verifier_key) == (b"text", b"entry", "key")
    asked = evidence_pb2.GetReceiptRequest(intent_id=intent, leaf_index=7, caller="app")
    assert adapter.asked == [asked]
    assert limit.charged == [("app", RECEIPT_US)]


async def test_what_is_no_intent_id_is_not_asked_for() -> None:
    adapter = Adapter()
    lookups = Lookups(adapter, None, None, None, None, Counting(), Timing())
    request = agent_pb2.GetReceiptRequest(intent_id=bytes(16))
    with pytest.raises(FailureError) as refused:
        await lookups.receipt(SocketHandles("app", (), None), request, 1.0)
    assert refused.value.reason == failures_pb2.REASON_INPUT_MALFORMED
    assert adapter.asked == []
