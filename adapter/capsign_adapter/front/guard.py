"""What stands before every method: identity, then bounds; and after it: every exception becomes a
typed failure.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from capsign_wire import bounds
from capsign_wire.failures import abort

from capsign_adapter.decide.peer import Peer
from capsign_adapter.front.identity import peer_of
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.failures import failure_of

Servicer = TypeVar("Servicer")
Response = TypeVar("Response")


def admit_call(context: grpc.ServicerContext) -> Peer:
    """The peer of a call whose certificate is valid now."""
    peer = peer_of(context)
    peer.still_valid(now_ms())
    return peer


def guarded(
    method: Callable[[Servicer, Peer, Any], Response],
) -> Callable[[Servicer, Any, grpc.ServicerContext], Response]:
    """A unary method that gets a verified peer and a message within its bounds."""

    @functools.wraps(method)
    def call(servicer: Servicer, request: Any, context: grpc.ServicerContext) -> Response:
        return answered(request, context, lambda peer: method(servicer, peer, request))

    return call


def answered(
    request: Any, context: grpc.ServicerContext, work: Callable[[Peer], Response]
) -> Response:
    """The answer of `work` for a verified peer and a message within its bounds, or the end of the
    call with a typed failure.
    """
    try:
        peer = admit_call(context)
        bounds.check(request)
        answer = work(peer)
    except Exception as error:  # the edge: nothing passes it untyped
        abort(context, failure_of(error))
    return answer
