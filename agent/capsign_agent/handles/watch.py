"""Follows the adapter's Watch stream: withdrawn handles, a new policy, a new revocation epoch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from capsign_wire import bounds
from capsign_wire.adapter.v1 import capability_pb2
from capsign_wire.failures import FailureError

from capsign_agent.handles.events import HandleEvents
from capsign_agent.handles.renewal import Renewal
from capsign_agent.timing import Timing


class Adapter(Protocol):
    """The source of the Watch stream. The stream ends by raising FailureError."""

    def watch(self) -> AsyncIterator[capability_pb2.WatchResponse]: ...


class Watch:
    """For one event loop."""

    def __init__(
        self,
        adapter: Adapter,
        changes: HandleEvents,
        renewal: Renewal,
        keys_changed: Callable[[], None],
        authorities_changed: Callable[[int], None],
        timing: Timing,
    ) -> None:
        """`keys_changed` is called for a new policy or epoch, `authorities_changed` with each
        sequence of the trust bundle that is announced.
        """
        self._adapter = adapter
        self._changes = changes
        self._renewal = renewal
        self._keys_changed = keys_changed
        self._authorities_changed = authorities_changed
        self._timing = timing
        self._epoch = 0
        self.policy = b""
        """The digest of the policy in force, as announced last."""

    async def listen(self) -> None:
        """Follow the stream of whichever replica answers, until cancelled."""
        failures = 0
        while True:
            try:
                async for told in self._adapter.watch():
                    failures = 0
                    bounds.check(told)
                    self.heed(told)
            except FailureError:
                failures += 1
            else:
                failures += 1
            await asyncio.sleep(self._timing.retry_delay_s(failures))

    def heed(self, told: capability_pb2.WatchResponse) -> None:
        """Act on one message of the stream."""
        self._authorities_changed(told.trust_bundle_sequence)
        # A replica that is behind tells what was lifted meanwhile. And whatever is dropped is asked
        # for once more: the news may be of an epoch that a renewal has told already.
        if told.revocation_epoch >= self._renewal.answered and self._changes.heed(told):
            self._renewal.fetch_soon()
        if told.policy_digest != self.policy:
            if self.policy:
                self._renewal.fetch_soon()
            self.policy = told.policy_digest
            self._keys_changed()
        elif told.revocation_epoch > self._epoch:
            self._keys_changed()  # a version may be revoked, or have moved on
        self._epoch = max(self._epoch, told.revocation_epoch)
        self._renewal.heed_epoch(told.revocation_epoch)
