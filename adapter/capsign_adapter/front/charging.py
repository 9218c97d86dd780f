"""Unary calls are charged by their cost before they are done.

Whoever is over its budget hears so only after a while: an answer at once would let it ask again at once, and to refuse costs too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc
from capsign_wire.bounds import Unparsed
from capsign_wire.failures import abort

from capsign_adapter.decide import cost
from capsign_adapter.decide.budget import Budget, UsedUpError
from capsign_adapter.front.identity import peer_of
from capsign_adapter.sign.edge import failure_of, pause


class ChargingRegistrar:
    """Pass this to a generated `add_…_to_server`: unary methods are charged before they begin."""

    def __init__(self, registrar: Any, budget: Budget) -> None:
        self._registrar = registrar
        self._budget = budget

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
                price = cost.CALL if isinstance(request, Unparsed) else cost.of_call(name, request)
                self._budget.charge(peer_of(context), price)
            except Exception as error:  # the edge: nothing passes it untyped
                if isinstance(error, UsedUpError):
                    pause(error.retry_after_ms)
                abort(context, failure_of(error))
            return behaviour(request, context)

        return handler._replace(unary_unary=call)
