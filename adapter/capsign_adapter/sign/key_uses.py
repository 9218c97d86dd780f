"""Counts in memory which versions of keys signed and when last; a ticker writes it down.

A row for each signature would cost what a signature costs. What was counted since the last look is
lost when a process is killed; the log has every signature, and nothing is decided by this.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from capsign_adapter.model.drift import KeyUse
from capsign_adapter.model.intents import Verdict
from capsign_adapter.sign.batch import Batch

MAX_VERSIONS = 65_536
"""Most versions that are counted between two looks."""

Name = tuple[str, str, int]


class KeyUseCounter:
    """One for a replica; any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Name, tuple[int, int]] = {}

    def note(self, batch: Batch) -> None:
        """Count the signatures of a batch that the ledger took."""
        new = Verdict.NEW
        for group in batch.groups:
            signable = group.signable
            if signable is None:
                continue
            count = 0
            for item in group.items:
                committed = item.committed
                if item.signatures and committed is not None and committed.verdict is new:
                    count += 1
            if count:
                tenant, key = signable.capability.tenant, signable.capability.key
                if len(signable.keys) == 1:
                    self._add(tenant, key, signable.keys[0].signed_by.version, batch.now_ms, count)
                    continue
                for version in {each.signed_by.version for each in signable.keys}:
                    self._add(tenant, key, version, batch.now_ms, count)

    def add(self, uses: Iterable[KeyUse]) -> None:
        """Count these too: also what was taken and could not be written."""
        for use in uses:
            self._add(use.tenant, use.key, use.version, use.last_ms, use.count)

    def _add(self, tenant: str, key: str, version: int, last_ms: int, count: int) -> None:
        name = tenant, key, version
        with self._lock:
            seen = self._seen.get(name)
            if seen is not None:
                self._seen[name] = max(seen[0], last_ms), seen[1] + count
            elif len(self._seen) < MAX_VERSIONS:
                self._seen[name] = last_ms, count

    def take(self) -> list[KeyUse]:
        """What was counted since the last time."""
        with self._lock:
            seen, self._seen = self._seen, {}
        return [KeyUse(*name, last_ms, count) for name, (last_ms, count) in seen.items()]
