"""The token, in turns: it has one thread, and whoever came with most calls would have most of it.

A thread that works on a batch or a call says so (`begin`); its calls of the token then wait for
their turn there, and its own turn to compute is over meanwhile: a token that is slow or hangs keeps
nobody from computing. All other calls pass as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from capsign_wire.types.v1 import algorithms_pb2

from capsign_adapter.decide import cost
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy
from capsign_adapter.sign.fair_scheduler import (
    CallTurn,
    FairQueue,
    FairScheduler,
    Flow,
    Turn,
    flow_of,
    turn_for,
)

if TYPE_CHECKING:
    from capsign_adapter.token.interface import Token

_HMAC_US = 60
_LOOK_US = 100


class ScheduledToken:
    """In front of a `Token`; what batches and calls do not ask for passes."""

    def __init__(self, token: Token, queue: FairQueue) -> None:
        self._token = token
        self._queue = queue
        self._mine = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._token, name)

    def begin(self, flow: Flow, turn: Turn | CallTurn) -> None:
        """This thread works on a batch or a call until it calls `end`."""
        self._mine.now = (flow, turn)

    def end(self) -> None:
        """It is done, or has failed."""
        self._mine.now = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around a wait for another thread, or for the store: who works on a batch or a call has no
        turn meanwhile.
        """
        now = getattr(self._mine, "now", None)
        if now is None:
            yield
            return
        with now[1].aside():
            yield

    def public_key(self, label: str) -> bytes:
        return self._in_turn(_LOOK_US, lambda: self._token.public_key(label))

    def hmac(self, label: str, data: bytes) -> bytes:
        return self._in_turn(_HMAC_US, lambda: self._token.hmac(label, data))

    def hkdf_hmac(self, label: str, info: bytes, data: bytes) -> bytes:
        return self._in_turn(2 * _HMAC_US, lambda: self._token.hkdf_hmac(label, info, data))

    def sign(self, label: str, algorithm: algorithms_pb2.Algorithm.ValueType, data: bytes) -> bytes:
        price = cost.signature(algorithm, algorithms_pb2.CUSTODY_CLASS_HSM_DIRECT)
        return self._in_turn(price, lambda: self._token.sign(label, algorithm, data))

    def _in_turn(self, cost_us: int, call: Callable[[], bytes]) -> bytes:
        now = getattr(self._mine, "now", None)
        if now is None:
            return call()
        flow, turn = now
        with turn.aside(), turn_for(self._queue, flow, cost_us):
            return call()


class BatchScheduler:
    """A turn for each batch, in its peer's flow: to compute, and at the token."""

    def __init__(self, policy: Policy, scheduler: FairScheduler, token: ScheduledToken) -> None:
        self._policy = policy
        self._scheduler = scheduler
        self._token = token

    @contextmanager
    def of(self, peer: Peer, caller: str) -> Iterator[Turn]:
        """Around all work on one batch of this peer, which came from that socket of its agent, on
        one thread.
        """
        flow = flow_of(self._policy, peer, caller)
        with Turn(self._scheduler, flow) as turn:
            self._token.begin(flow, turn)
            try:
                yield turn
            finally:
                self._token.end()
