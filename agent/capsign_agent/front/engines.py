"""What speaks HTTP/2 on the applications' sockets: grpcio, or pygrpc-native, which has grpcio's own
servicer interface (decision 77).

grpcio lets a method receive its messages itself, so that nothing is in memory that was not asked
for. pygrpc-native hands a unary call over with its message, whatever its size, and passes streams
on to a server of grpcio behind it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import grpc.aio

from capsign_agent.front_settings import NATIVE_PACKAGE


class Engine(NamedTuple):
    """One of them."""

    package: str
    """The module whose `server` makes a server in the manner of `grpc.aio`."""
    receives_whole: bool
    """Whether a unary call comes with its message. Otherwise its handler asks for it."""
    ignored: frozenset[str]
    """Settings of grpcio that it refuses."""

    def server(self, options: Sequence[tuple[str, int]]) -> grpc.aio.Server:
        """A server with these settings of grpcio, of those that it takes."""
        taken = [(name, value) for name, value in options if name not in self.ignored]
        made: grpc.aio.Server = importlib.import_module(self.package).server(options=taken)
        return made


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        "grpcio": Engine("grpc.aio", receives_whole=False, ignored=frozenset()),
        "native": Engine(
            f"{NATIVE_PACKAGE}.aio",
            receives_whole=True,
            ignored=frozenset({"grpc.max_allowed_incoming_connections"}),
        ),
    }
)
"""By the names of `front.engine`."""
