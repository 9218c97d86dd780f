"""Keeps the handles valid: fetches them at the start, renews them at half of their lifetime with
jitter, drops them as soon as the adapter says so.

After an outage they are fetched as soon as a connection is open again, and a call that finds them
ended waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from capsign_wire import bounds, logs
from capsign_wire.adapter.v1 import capability_pb2
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.events import HandleEvents
from capsign_agent.handles.held_handle import HeldHandle
from capsign_agent.handles.registry import HandleRegistry
from capsign_agent.handles.unavailable import NotYetError
from capsign_agent.retry_delay import LEAST_WAIT_S, MOST_S
from capsign_agent.timing import USUAL, Timing

T = TypeVar("T")

RENEWAL_BYTES = bounds.ADAPTER_REQUEST_BYTES - 16 * 1024
"""Most bytes of tokens in one renewal request."""
LAST_WORD_S = 0.25
"""Seconds of a caller's time, or a quarter of it if that is less, that are kept to answer that the
wait was in vain. A caller that hears nothing believes that the agent is dead, and that the
signature may have been made.
"""

MOST_WAITS = 3
"""How many answers of the adapter a call waits for whose handle has ended. The first may answer a
request that was made before.
"""


class Adapter(Protocol):
    """The adapter's calls about handles. Each raises FailureError."""

    def issue(self, grants: list[str]) -> Awaitable[capability_pb2.IssueHandlesResponse]: ...

    def renew(self, tokens: list[bytes]) -> Awaitable[capability_pb2.RenewHandlesResponse]: ...


class Renewal:
    """Fetches and renews handles while `keep` runs. For one event loop."""

    def __init__(
        self,
        registry: HandleRegistry,
        adapter: Adapter,
        changes: HandleEvents,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        connected: Callable[[], bool] = lambda: False,
        timing: Timing = USUAL,
    ) -> None:
        """`connected` says whether an adapter is connected."""
        self._registry = registry
        self._adapter = adapter
        self._changes = changes
        self._metrics = metrics
        self._clock = clock
        self._connected = connected
        self._timing = timing
        self._failures = 0
        self._awaited = False
        self._tried = asyncio.Event()
        self._asking = asyncio.Lock()
        self._kick = asyncio.Event()
        self._fetch_anew = True
        self._fetching = False
        self._told_meanwhile = 0
        self._epoch = 0
        self._answered = 0

    @property
    def answered(self) -> int:
        """The revocation epoch under which the full set was given that was taken last."""
        return self._answered

    def fetch_soon(self) -> None:
        """Fetch a full new set as soon as possible, because those held may be out of date."""
        self._fetch_anew = True
        self._kick.set()

    def reconnected(self) -> None:
        """An adapter is connected again: if the last attempt failed, try now and not at the planned
        time.
        """
        if self._failures:
            self._failures = 0
            self.fetch_soon()

    async def hold(self, look: Callable[[], T], timeout_s: float) -> T:
        """The result of `look`. While it raises NotYetError, new handles are fetched and `look` is
        called again, as long as an adapter is connected and until LAST_WORD_S before the timeout.
        Raises what `look` raises.
        """
        until = asyncio.get_running_loop().time() + timeout_s - min(LAST_WORD_S, timeout_s / 4)
        for _ in range(MOST_WAITS):
            try:
                return look()
            except NotYetError:
                left_s = until - asyncio.get_running_loop().time()
                if left_s <= 0 or not self._connected():
                    raise
            self._awaited = True
            self.fetch_soon()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._tried.wait(), left_s)
        return look()

    def refused(self, held: HeldHandle, reason: failures_pb2.Reason.ValueType) -> None:
        """The adapter refused this handle. A revoked one is dropped; all are fetched anew."""
        if reason == failures_pb2.REASON_HANDLE_REVOKED:
            self._changes.drop(held.grant)
        self.fetch_soon()

    def heed_epoch(self, epoch: int) -> None:
        """An adapter announced its revocation epoch, and so that it is there. If it is newer than
        that of the handles held, new ones are fetched. While a fetch is under way it is compared
        with the answer instead.
        """
        self._registry.contact.heard()
        if epoch <= self._epoch:
            return
        self._epoch = epoch
        if self._fetching:
            self._told_meanwhile = epoch
        else:
            self.fetch_soon()

    async def keep(self) -> None:
        """Fetch, then renew, until cancelled. Failures are repeated with exponential back-off and
        full jitter.
        """
        while True:
            self._kick.clear()
            try:
                if self._fetch_anew or not self._all_usable():
                    # one that has ended cannot be renewed: the adapter would leave it out as if
                    # withdrawn
                    await self.fetch()
                else:
                    await self._renew()
                self._failures = 0
                self._registry.last_error.failure = None
            except FailureError as error:
                self._failures += 1
                self._registry.last_error.failure = error
                self._metrics.counter("capsign.retries").add("upstream")
                if self._failures == 1:
                    logs.warning("handles.fetch_failed", reason=error.row.name)
            self._awaited = False
            tried, self._tried = self._tried, asyncio.Event()
            tried.set()
            failures = self._failures
            wait_s = self._timing.retry_delay_s(failures) if failures else self._next_wait()
            if await self._kicked(wait_s):
                # Many refusals may arrive at once, and the adapter may refuse for a while: one
                # fetch a moment is enough.
                await asyncio.sleep(
                    random.uniform(0.05, 0.15)
                    * (1 + min(self._failures, 5 if self._awaited else 50))
                )

    async def fetch(self, over: Adapter | None = None) -> None:
        """Fetch a full set; `over` gives the connections of a certificate that will be used next.
        Raises FailureError.

        One request at a time: if two answers crossed, the one for the older certificate might be
        kept. Nothing is awaited between taking the answer and returning.
        """
        async with self._asking:
            # What is told from here on may be newer than the answer: a policy asks again, an epoch
            # is held against the answer's. At a start the first news may come before the first
            # handles, and is no reason to ask twice.
            asked_by_others = over is not None and self._fetch_anew
            self._fetch_anew, self._fetching, self._told_meanwhile = False, True, 0
            try:
                response = await (over or self._adapter).issue(self._registry.wanted)
                bounds.check(response)
                self._take(
                    lambda now: self._registry.replace(
                        response.handles, now, response.mint_public_key, response.revoked
                    )
                )
            except BaseException:
                self._fetch_anew = True
                # `keep` left it to this one, and must not wait for half a life
                if self._told_meanwhile or asked_by_others:
                    self._kick.set()
                raise
            finally:
                self._fetching = False
            self._answered = response.revocation_epoch
            self._epoch = max(self._epoch, self._answered)
            self._changes.tell_missing()
            if self._told_meanwhile > response.revocation_epoch:
                self.fetch_soon()

    async def _kicked(self, wait_s: float) -> bool:
        """Wait until somebody asks for handles (True), or for that many seconds by the timer or by
        the clock, whichever ends first (False).
        """
        loop = asyncio.get_running_loop()
        timer, at = loop.time() + wait_s, self._clock() + wait_s
        while (left_s := min(timer - loop.time(), at - self._clock())) > 0:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(
                    self._kick.wait(), min(left_s, self._timing.look_at_handles_s)
                )
        return False

    def _all_usable(self) -> bool:
        """Whether there are handles and none has ended."""
        held = len(self._registry.issued)
        return held > 0 and self._registry.usable(self._clock()) == held

    async def _renew(self) -> None:
        async with self._asking:
            due = self._registry.due(self._clock())
            # while it waited for its turn, the question before it may have failed
            if not due or self._fetch_anew:
                return
            for asked in in_requests({grant: self._registry.issued[grant].token for grant in due}):
                response = await self._adapter.renew(list(asked.values()))
                bounds.check(response)
                self._renewed(asked, response)
                if self._fetch_anew:
                    return

    def _renewed(self, asked: Iterable[str], response: capability_pb2.RenewHandlesResponse) -> None:
        self._take(lambda now: self._registry.renewed(asked, response.handles, now))
        self._epoch = max(self._epoch, response.revocation_epoch)

    def _take(self, change: Callable[[float], None]) -> None:
        """Take handles; if one of them cannot be used, plan another fetch and raise
        FailureError.
        """
        try:
            self._changes.take(change)
        except FailureError:
            self._fetch_anew = True
            raise
        self._registry.last_error.failure = None
        self._registry.contact.heard()

    def _next_wait(self) -> float:
        at = self._registry.half_life()
        if not at:
            return MOST_S
        return max(LEAST_WAIT_S, (at - self._clock()) * random.uniform(0.9, 1.0))


def in_requests(tokens: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """Grants and their tokens, in portions that fit into one request."""
    part: dict[str, bytes] = {}
    size = 0
    for grant, token in tokens.items():
        if size + len(token) > RENEWAL_BYTES and part:
            yield part
            part, size = {}, 0
        part[grant] = token
        size += len(token)
    if part:
        yield part
