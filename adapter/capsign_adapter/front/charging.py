"""Charges unary calls by their cost before the work, and gives them turns within their tenant.

A caller that is over its budget gets the refusal after a delay: refusing costs something too, and
an immediate answer would invite the next call at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from capsign_wire.bounds import Unparsed
from capsign_wire.failures import FailureError, abort

from capsign_adapter.decide import cost
from capsign_adapter.decide.budget import Budget, UsedUpError
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import PolicyNow
from capsign_adapter.front.identity import peer_of
from capsign_adapter.sign.clock import pause
from capsign_adapter.sign.failures import failure_of
from capsign_adapter.sign.fair_scheduler import CallTurn, FairQueue, FairScheduler, flow_of
from capsign_adapter.sign.scheduled_token import ScheduledToken

AT_ONCE = 1
"""Unary calls of one tenant that compute at the same time: they share Python's interpreter lock
with the batches of all others. Any number of them may wait for the token or the store meanwhile.
"""

_WAITS_ELSEWHERE = frozenset({"Renew"})
"""Methods that wait for the cluster; `enrol.enrolment` bounds those."""


class ChargingRegistrar:
    """Pass this to a generated `add_…_to_server`: unary methods are charged before they begin."""

    def __init__(
        self,
        registrar: Any,
        policy: PolicyNow,
        budget: Budget,
        scheduler: FairScheduler,
        token: ScheduledToken,
        pause: Callable[[int], object] = pause,
    ) -> None:
        """`pause` sleeps for a number of milliseconds."""
        self._pause = pause
        self._token = token
        self._registrar = registrar
        self._scheduler = scheduler
        self._policy = policy
        self._budget = budget
        self._lock = threading.Lock()
        self._queues: dict[str, _TenantQueue] = {}

    def add_generic_rpc_handlers(self, _: Any) -> None:
        """Nothing: the handlers come again, by name, in the next call."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Hand the handlers on."""
        charged = {name: self._charged(name, handler) for name, handler in handlers.items()}
        self._registrar.add_registered_method_handlers(service, charged)

    def _charged(self, name: str, handler: Any) -> Any:
        if handler.unary_unary is None:
            return handler
        behaviour: Callable[[Any, grpc.ServicerContext], Any] = handler.unary_unary

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                peer = peer_of(context)
                price = _price(name, request)
                self._budget.charge(peer, price)
            except Exception as error:  # the edge: nothing passes it untyped
                if isinstance(error, UsedUpError):
                    self._pause(error.retry_after_ms)
                abort(context, failure_of(error))
            with self._turn(peer, name, price, context):
                return behaviour(request, context)

        return handler._replace(unary_unary=call)

    @contextmanager
    def _turn(
        self, peer: Peer, name: str, price: int, context: grpc.ServicerContext
    ) -> Iterator[None]:
        """Wait for a turn among the calls of this tenant; see `CallTurn`. Identities with a role do
        not wait: they may have to revoke. Ends the call if no turn comes.
        """
        policy = self._policy()
        if policy.roles_of(peer.spiffe_id) or name in _WAITS_ELSEWHERE:
            yield
            return
        flow = flow_of(policy, peer)
        with (
            self._queue(flow[0]) as queue,
            CallTurn(self._scheduler, queue, flow, price) as turn,
        ):
            try:
                turn.begin()
            except FailureError as error:
                abort(context, error)
            self._token.begin(flow, turn)
            try:
                yield
            finally:
                self._token.end()

    @contextmanager
    def _queue(self, tenant: str) -> Iterator[FairQueue]:
        """The queue of a tenant's calls, kept as long as it has any."""
        with self._lock:
            queue = self._queues.setdefault(tenant, _TenantQueue())
            queue.users += 1
        try:
            yield queue
        finally:
            with self._lock:
                queue.users -= 1
                if not queue.users:
                    del self._queues[tenant]


def _price(name: str, request: Any) -> int:
    return cost.CALL if isinstance(request, Unparsed) else cost.of_call(name, request)


class _TenantQueue(FairQueue):
    """The queue of one tenant, and how many calls use it."""

    def __init__(self) -> None:
        super().__init__(AT_ONCE)
        self.users = 0
