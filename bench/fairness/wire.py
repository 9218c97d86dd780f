"""One channel to the adapter as one of the identities of the house, with messages made by the
caller.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
from capsign_wire.adapter.v1 import capability_pb2, capability_pb2_grpc
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.algorithms import ALGORITHMS, BY_NAME
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import signing_pb2

LARGE = [
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
]


def read_about() -> dict[str, Any]:
    """What `House.about` said: the first line of standard input."""
    about: dict[str, Any] = json.loads(sys.stdin.readline())
    return about


def connect(about: dict[str, Any], account: str, pod: int) -> grpc.Channel:
    """As that pod of that account."""
    certificate, key = about["identities"][account][pod]
    files = (Path(about["ca"]), Path(key), Path(certificate))
    credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
    return grpc.secure_channel(
        about["address"],
        credentials,
        [("grpc.ssl_target_name_override", about["server_name"]), *LARGE],
    )


def handle(channel: grpc.Channel, grant: str) -> bytes:
    """A fresh handle."""
    request = capability_pb2.IssueHandlesRequest(grants=[grant])
    answer = capability_pb2_grpc.CapabilityServiceStub(channel).IssueHandles(
        request, timeout=30, wait_for_ready=True
    )
    token: bytes = answer.handles[0].token
    return token


def group(
    algorithm: str, items: int, *, index: int = 0, role: str = "issuer", transcript: bytes = b""
) -> pb.SignGroup:
    """So many fresh intents."""
    row = ALGORITHMS[BY_NAME[algorithm].number]
    data = b"x" * (row.max_input if row.takes_digest else 100)
    return pb.SignGroup(
        handle_index=index,
        algorithm=row.number,
        context=signing_pb2.ContextSuffix(role=role, transcript=transcript),
        items=[pb.SignItem(intent_id=new_intent_id(), input=data) for _ in range(items)],
    )


class Stream:
    """One Sign stream, a batch at a time. It is opened anew after the adapter has ended it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._call: Any = channel.stream_stream(
            "/capsign.adapter.v1.SigningService/Sign",
            request_serializer=pb.SignRequest.SerializeToString,
            response_deserializer=pb.SignResponse.FromString,
        )
        self._requests: SimpleQueue[pb.SignRequest | None] = SimpleQueue()
        self._answers: Any = None

    def send(self, request: pb.SignRequest) -> pb.SignResponse:
        """Its answer. Raises grpc.RpcError."""
        if self._answers is None:
            self._requests = SimpleQueue()
            self._answers = self._call(iter(self._requests.get, None), wait_for_ready=True)
        self._requests.put(request)
        try:
            answer: pb.SignResponse = next(self._answers)
        except grpc.RpcError:
            self.close()
            raise
        return answer

    def close(self) -> None:
        """End it."""
        self._requests.put(None)
        self._answers = None
