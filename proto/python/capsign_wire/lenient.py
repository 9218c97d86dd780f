"""Requests that are no messages reach the servicer as a value, so that they get a typed answer like every other bad input.

Left to itself gRPC answers a request it cannot parse with INTERNAL, and its synchronous server does not always let go of that
RPC: with a bound on concurrent RPCs, a few such requests would take a place each for ever, and `stop` would wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError


class Unparsed:
    """Stands in for a request whose bytes are no message of its type. `bounds.check` refuses it as INPUT_MALFORMED."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class LenientRegistrar:
    """Pass this to a generated `add_…_to_server` in place of the server, sync or aio."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, _: Any) -> None:
        """Nothing: the handlers that generated code passes here come again, by name, in the next call."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register the handlers with deserializers that do not fail."""
        lenient = {
            name: handler._replace(request_deserializer=_lenient(handler.request_deserializer, f"{service}.{name}"))
            for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, lenient),))
        self._server.add_registered_method_handlers(service, lenient)


def _lenient(parse: Callable[[bytes], Any], method: str) -> Callable[[bytes], Any]:
    unparsed = Unparsed(method)

    def deserialize(wire: bytes) -> Any:
        try:
            return parse(wire)
        except DecodeError:
            return unparsed

    return deserialize
