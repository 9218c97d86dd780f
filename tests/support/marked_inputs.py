"""Requests with a marked value in every field that takes text or bytes, for every method of every
service: made from the descriptors, so that a new field is covered by itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from capsign_wire.types.v1 import bounds_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

SIZE = 24
"""Bytes of a mark, where its field takes so many."""


@dataclass
class Marks:
    """What was put where: marks by the name of what they stand for."""

    values: dict[str, bytes] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A new mark that passes for a name of the policy."""
        made = f"mk{secrets.token_hex(SIZE // 2)}"
        self.values[name] = made.encode()
        return made

    def raw(self, name: str, size: int = SIZE) -> bytes:
        """A new mark of random bytes."""
        made = secrets.token_bytes(size)
        self.values[name] = made
        return made

    def of_field(self, one: FieldDescriptor, where: str) -> str | bytes:
        """A mark that the field takes, by its bound."""
        bound = one.GetOptions().Extensions[bounds_pb2.bound]
        name = f"{where}.{one.name}"
        if one.type == FieldDescriptor.TYPE_BYTES:
            most = bound.max_len or SIZE
            return self.raw(name, max(bound.min_len, min(SIZE, most)))
        if bound.format == bounds_pb2.FORMAT_SPIFFE_ID:
            return f"spiffe://capsign.test/{self.text(name)}"
        if bound.format == bounds_pb2.FORMAT_TRACEPARENT:  # ids that are there to be told
            return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        return self.text(name).ljust(bound.min_len, "x")


def marked(descriptor: Any, marks: Marks, where: str) -> Message:
    """A message of that type with everything in it marked. Of a oneof the last field stays; lists
    have one element, numbers and enumerations are 1.
    """
    message = message_factory.GetMessageClass(descriptor)()
    for one in descriptor.fields:
        if one.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
            value: Any = marks.of_field(one, where)
        elif one.message_type is not None:
            if one.message_type.full_name.startswith("google.protobuf."):
                continue
            value = marked(one.message_type, marks, f"{where}.{one.name}")
        else:
            value = 1
        target = getattr(message, one.name)
        if one.is_repeated:
            target.append(value)
        elif one.message_type is not None:
            target.CopyFrom(value)
        else:
            setattr(message, one.name, value)
    return message


def requests(modules: Any, marks: Marks) -> Iterator[tuple[MethodDescriptor, Message]]:
    """A marked request for each method of each service of these modules."""
    for module in modules:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                where = f"{service.full_name}/{method.name}"
                yield method, marked(method.input_type, marks, where)


def call(channel: grpc.Channel, method: MethodDescriptor, request: Message, seconds: float) -> str:
    """Ask; everything that the answer says if it is a refusal, and the text of it if it is not."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer_type = message_factory.GetMessageClass(method.output_type)
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    ask: Any = kinds[method.client_streaming, method.server_streaming](
        path,
        request_serializer=lambda one: one.SerializeToString(),
        response_deserializer=answer_type.FromString,
    )
    given = iter([request]) if method.client_streaming else request
    try:
        answer = ask(given, timeout=seconds)
        return str(next(answer, "") if method.server_streaming else answer)
    except grpc.RpcError as error:
        return f"{error.details()} {error.trailing_metadata()}"
