"""Passes requests that cannot be parsed to the servicer as a value, so that they get a typed
failure like other bad input.

By itself gRPC answers such a request with INTERNAL, and its synchronous server does not always end
that RPC: with a bound on concurrent RPCs, each would count for ever, and `stop` would wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from capsign_wire.advice import Given
from capsign_wire.bounds import Unparsed, check
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

LARGE = 64 * 1024
"""Bytes. A larger request is checked against its bounds before anything else, and dropped if it
breaks one: a million empty items are two MiB on the wire and sixty in memory, and many such
requests must not be held while they wait.
"""


class LenientRegistrar:
    """Pass this to a generated `add_…_to_server` in place of the server, sync or aio."""

    def __init__(self, server: Any, most_bytes: int) -> None:
        """`most_bytes`: largest request. What gRPC accepts above it is refused with a typed
        failure, unparsed.
        """
        self._server = server
        self._most_bytes = most_bytes

    def add_generic_rpc_handlers(self, _: Any) -> None:
        """Nothing: the handlers that generated code passes here come again, by name, in the next
        call.
        """

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register the handlers with deserializers that do not fail."""
        lenient = {
            name: handler._replace(
                request_deserializer=_lenient(
                    handler.request_deserializer, f"{service}.{name}", self._most_bytes
                )
            )
            for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, lenient),)
        )
        self._server.add_registered_method_handlers(service, lenient)


def _lenient(parse: Callable[[bytes], Any], method: str, most_bytes: int) -> Callable[[bytes], Any]:
    error = FailureError(
        failures_pb2.REASON_INPUT_MALFORMED,
        f"The bytes are not a request of {method}.",
        given=Given.REQUEST,
    )
    unparsed = Unparsed(error.to_item())

    def deserialize(wire: bytes) -> Any:
        if len(wire) > most_bytes:
            text = f"The request is {len(wire)} bytes long; at most {most_bytes} are taken."
            reason = failures_pb2.REASON_INPUT_TOO_LARGE
            return Unparsed(FailureError(reason, text, given=Given.REQUEST).to_item())
        try:
            message = parse(wire)
        except DecodeError:
            return unparsed
        if len(wire) > LARGE:
            try:
                check(message)
            except FailureError as error:
                return Unparsed(
                    error.to_item(),
                    getattr(message, "call_id", 0) or getattr(message, "batch_id", 0),
                )
        return message

    return deserialize
