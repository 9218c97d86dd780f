"""Speaks to one adapter of a deployment as a workload would whose agent is not ours: over mTLS,
with its own certificate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import grpc
from capsign_wire.adapter.v1 import (
    capability_pb2,
    capability_pb2_grpc,
    signing_pb2,
    signing_pb2_grpc,
)
from capsign_wire.algorithms import BY_NAME
from capsign_wire.types.v1 import signing_pb2 as types


class DirectAdapter:
    """One channel to one replica. Use it in a `with` statement, from any number of threads."""

    def __init__(
        self, about: dict[str, Any], replica: int = 0, client: str = "app", where: str = "address"
    ) -> None:
        mine = about["clients"][client]
        files = (about["ca"], mine["private_key"], mine["certificate"])
        credentials = grpc.ssl_channel_credentials(*[Path(file).read_bytes() for file in files])
        options = [("grpc.ssl_target_name_override", about["server_name"])]
        self.channel = grpc.secure_channel(about["adapters"][replica][where], credentials, options)
        self.capability = capability_pb2_grpc.CapabilityServiceStub(self.channel)
        self.signing = signing_pb2_grpc.SigningServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def handle(self, grant: str) -> bytes:
        """A fresh handle."""
        request = capability_pb2.IssueHandlesRequest(grants=[grant])
        answer = self.capability.IssueHandles(request, timeout=30, wait_for_ready=True)
        return answer.handles[0].token

    def sign(
        self, handle: bytes, algorithm: str, intent_id: bytes, data: bytes, **context: str
    ) -> types.SignedItem:
        """The answer to one item; `data` is what goes upstream: a digest where the algorithm signs
        one.
        """
        group = signing_pb2.SignGroup(
            algorithm=BY_NAME[algorithm].number,
            context=types.ContextSuffix(**context),
            items=[signing_pb2.SignItem(intent_id=intent_id, input=data)],
        )
        request = signing_pb2.SignRequest(batch_id=1, handles=[handle], groups=[group])
        (answer,) = self.signing.Sign(iter([request]), timeout=30, wait_for_ready=True)
        assert not answer.HasField("failure"), answer.failure
        return answer.groups[0].items[0]

    def resolve(self, handle: bytes, intent_id: bytes) -> signing_pb2.ResolveIntentResponse:
        """What became of an intent."""
        request = signing_pb2.ResolveIntentRequest(handle=handle, intent_id=intent_id)
        return self.signing.ResolveIntent(request, timeout=30, wait_for_ready=True)
