"""One signature of an adapter, as an agent asks for it."""

from __future__ import annotations

import grpc
from capsign_wire.adapter.v1 import capability_pb2, capability_pb2_grpc, signing_pb2_grpc
from capsign_wire.adapter.v1 import signing_pb2 as wire
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2
from support.signed import only


class Asking:
    """An agent of APP, with its handle."""

    def __init__(self, channel: grpc.Channel) -> None:
        stub = capability_pb2_grpc.CapabilityServiceStub(channel)
        issued = stub.IssueHandles(capability_pb2.IssueHandlesRequest(), timeout=20).handles
        self._token = next(each.token for each in issued if each.grant == "orders-jwt")
        self._signing = signing_pb2_grpc.SigningServiceStub(channel)

    def sign(self, message: bytes = b"m") -> bytes:
        """The signature. Raises RpcError."""
        group = wire.SignGroup(
            algorithm=algorithms_pb2.ALGORITHM_ED25519,
            context=signing_pb2.ContextSuffix(role="issuer"),
            items=[wire.SignItem(intent_id=new_intent_id(), input=message)],
        )
        request = wire.SignRequest(batch_id=1, handles=[self._token], groups=[group])
        (answer,) = self._signing.Sign(iter([request]), timeout=20)
        return only(answer.groups[0].items[0])
