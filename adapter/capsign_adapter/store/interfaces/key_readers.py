"""Who fetched public keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from capsign_adapter.model.key_readers import KeyReader

MAX_READERS = 4096
"""Most readers that a read returns."""


class KeyReaders(Protocol):
    """Observations: no leaf, and no epoch. One row for each grant and workload; a row that nobody
    added to for 30 days is deleted with the next change, so that those of identities and grants
    that are no more go away.
    """

    def note_key_readers(self, seen: Sequence[KeyReader], now_ms: int) -> None:
        """Add fetches: `fetches` counts those since the last call. The newest version and sequence
        stay; the count begins anew with each newer version, and what was fetched without the newest
        is not counted.
        """

    def key_readers(self, tenant: str, key: str) -> list[KeyReader]:
        """Those of one key, the last to fetch first: at most MAX_READERS."""
