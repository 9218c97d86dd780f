"""Quotas of the enrolment listener, where callers have no certificate yet: by source address.

`peer_quota` does the same by certificate. Many pods can share one address (a node that rewrites
senders' addresses), so the bounds allow for a node that starts all its pods at once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front.call_deadlines import REQUEST_SECONDS, CallDeadlines
from capsign_adapter.front.identity import demand_tls_1_3
from capsign_adapter.front.peer_address import address_of
from capsign_adapter.sign.failures import failure_of

CALLS_OF_ONE_ADDRESS = 8
"""Concurrent calls of one address, from the headers to the answer."""

CALLS_PER_SECOND, CALLS_AT_ONCE = 10, 120
"""Rate and burst of the calls of one address. The burst is as many as a node has pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressBounds:
    """Of the calls of one address."""

    open_calls: int = CALLS_OF_ONE_ADDRESS
    per_second: int = CALLS_PER_SECOND
    at_once: int = CALLS_AT_ONCE
    request_s: float = REQUEST_SECONDS
    """Longest wait for the request of a call, seconds."""


USUAL = AddressBounds()
"""The bounds of an adapter."""


class AddressQuota:
    """Counts the open calls of each address. Safe for any thread."""

    def __init__(self, rates: Buckets, bounds: AddressBounds = USUAL) -> None:
        """`rates` must not be shared with others: these buckets count calls."""
        self._bounds = bounds
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self.deadlines = CallDeadlines()
        """Calls that wait for a request."""
        self._rates = rates

    @contextmanager
    def waiting(self, context: grpc.ServicerContext, method: str) -> Iterator[None]:
        """Count a call that waits for its request; `sweep` cancels it after REQUEST_SECONDS. Ends
        the call with a typed failure if a bound is reached.
        """
        try:
            demand_tls_1_3(context)
            self.demand_rate(_name(context))
            self._take(_name(context))
        except Exception as error:  # the edge: nothing passes it untyped
            abort(context, failure_of(error))
        try:
            with self.deadlines.of(context, self._bounds.request_s):
                yield
        finally:
            self._leave(_name(context))

    @contextmanager
    def working(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Count a call whose request has come, until the block ends. Raises FailureError
        OVERLOADED.
        """
        self._take(_name(context))
        try:
            yield
        finally:
            self._leave(_name(context))

    def sweep(self) -> int:
        """Cancel the calls that have waited too long for their request. Returns how many."""
        return self.deadlines.sweep()

    def demand_rate(self, name: str) -> None:
        """Count a call of an address. Raises FailureError RATE_LIMITED."""
        rate, burst = self._bounds.per_second, self._bounds.at_once
        granted, wait_ms = self._rates.take(name, "", rate, burst, 1)
        if not granted:
            sentence = "This address enrols too often."
            raise FailureError(failures_pb2.REASON_RATE_LIMITED, sentence, retry_after_ms=wait_ms)

    def _take(self, name: str) -> None:
        with self._lock:
            if self._held[name] >= self._bounds.open_calls:
                sentence = f"This address has {self._bounds.open_calls} open calls."
                raise FailureError(failures_pb2.REASON_OVERLOADED, sentence, retry_after_ms=500)
            self._held[name] += 1

    def _leave(self, name: str) -> None:
        with self._lock:
            self._held[name] -= 1
            if not self._held[name]:
                del self._held[name]


def _name(context: grpc.ServicerContext) -> str:
    return str(address_of(context.peer()) or "")
