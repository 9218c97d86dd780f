"""What is signed under: a handle, an algorithm and a full context."""

from __future__ import annotations

from dataclasses import dataclass

from capsign_wire.types.v1 import algorithms_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.handles.held_handle import HeldHandle


@dataclass(frozen=True, slots=True)
class HandleScope:
    """One handle, an algorithm and a full context suffix: they determine the key."""

    held: HeldHandle
    algorithm: algorithms_pb2.Algorithm.ValueType
    suffix: types_pb2.ContextSuffix
    suffix_bytes: bytes

    @property
    def key(self) -> tuple[str, int, bytes]:
        return (self.held.grant, self.algorithm, self.suffix_bytes)
