"""Schedules calls of the token fairly: it has one thread, and a caller with more calls would get
more of it.

A thread that works on a batch or call announces it (`begin`). Its calls of the token then wait for
a turn at the token, and it holds no turn to compute meanwhile, so that a slow or hanging token does
not keep others from computing. Calls of other threads are passed on as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from capsign_wire.types.v1 import algorithms_pb2

from capsign_adapter.decide import cost
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import PolicyNow
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
_READ_US = 100


class ScheduledToken:
    """A proxy of a `Token`. Methods that batches and calls do not use are passed on."""

    def __init__(self, token: Token, queue: FairQueue) -> None:
        self._token = token
        self._queue = queue
        self._mine = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._token, name)

    def begin(self, flow: Flow, turn: Turn | CallTurn) -> None:
        """This thread works on a batch or call of `flow` until it calls `end`."""
        self._mine.now = (flow, turn)

    def end(self) -> None:
        """The work has ended, or failed."""
        self._mine.now = None

    @contextmanager
    def yielded(self) -> Iterator[None]:
        """Around a wait for another thread or the store: this thread holds no turn meanwhile."""
        now = getattr(self._mine, "now", None)
        if now is None:
            yield
            return
        with now[1].yielded():
            yield

    def public_key(self, label: str) -> bytes:
        return self._in_turn(_READ_US, lambda: self._token.public_key(label))

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
        with turn.yielded(), turn_for(self._queue, flow, cost_us):
            return call()


class BatchScheduler:
    """Gives each batch the turns of its peer's flow: to compute, and at the token."""

    def __init__(
        self,
        policy: PolicyNow,
        scheduler: FairScheduler,
        token: ScheduledToken,
        turn: type[Turn] = Turn,
    ) -> None:
        self._policy = policy
        self._scheduler = scheduler
        self._token = token
        self._turn = turn

    def of(self, peer: Peer, caller: str) -> AbstractContextManager[Turn]:
        """Around all work on one batch, on one thread. `caller` names the socket of the peer's
        agent that it came from.
        """
        flow = flow_of(self._policy(), peer, caller)
        return _TurnOfBatch(self._token, flow, self._turn(self._scheduler, flow))


class _TurnOfBatch:
    """A batch's turn, which the token knows of. A class, since this is done for every batch: with
    `contextmanager` it cost three times as much.
    """

    __slots__ = ("_flow", "_token", "_turn")

    def __init__(self, token: ScheduledToken, flow: Flow, turn: Turn) -> None:
        self._token, self._flow, self._turn = token, flow, turn

    def __enter__(self) -> Turn:
        turn = self._turn.__enter__()
        self._token.begin(self._flow, turn)
        return turn

    def __exit__(self, *raised: object) -> None:
        self._token.end()
        self._turn.__exit__(*raised)
