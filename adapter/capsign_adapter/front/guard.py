"""Wraps unary methods: identifies the peer, checks the request's bounds, and turns every exception
into a typed failure.
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
    """Returns the peer of a call. Raises FailureError if its certificate names nobody or is not
    valid now.
    """
    peer = peer_of(context)
    peer.still_valid(now_ms())
    return peer


def guarded(
    method: Callable[[Servicer, Peer, Any], Response],
) -> Callable[[Servicer, Any, grpc.ServicerContext], Response]:
    """Decorates a unary method so that it gets a verified peer and a request within its bounds."""

    @functools.wraps(method)
    def call(servicer: Servicer, request: Any, context: grpc.ServicerContext) -> Response:
        return answered(request, context, lambda peer: method(servicer, peer, request))

    return call


def answered(
    request: Any, context: grpc.ServicerContext, work: Callable[[Peer], Response]
) -> Response:
    """Returns the answer of `work` for the verified peer, after checking the request's bounds. Ends
    the call with a typed failure on any exception.
    """
    try:
        peer = admit_call(context)
        bounds.check(request)
        answer = work(peer)
    except Exception as error:  # the edge: nothing passes it untyped
        abort(context, failure_of(error))
    return answer
