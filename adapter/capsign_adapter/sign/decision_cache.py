"""Caches decisions about groups (steps 2, 3 and 5): same handle, peer, algorithm, context and
snapshot.

A decision depends on these and on the time, and on the time only through the moment when the handle
expires. So it is kept for one second, or until then if that is sooner. A revocation changes the
snapshot, so no decision made before it is found.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from capsign_wire.adapter.v1 import signing_pb2 as pb

from capsign_adapter.decide.peer import Peer
from capsign_adapter.sign.scope import Signable
from capsign_adapter.sign.snapshot import Snapshot

KEPT_MS = 1000
"""Longest time that a decision is used, and that it may keep a subkey in memory longer."""

CAPACITY = 4096
"""Most decisions kept; when it is reached all are dropped."""

Name = tuple[bytes, str, bytes, int, bool, bytes, str, str, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    snapshot: Snapshot
    until_ms: int
    signable: Signable

    def holds(self, now_ms: int) -> bool:
        """Whether the decision is still valid. One from the future is not: a clock that was set
        back must not prolong it.
        """
        return now_ms < self.until_ms <= now_ms + KEPT_MS


class DecisionCache:
    """A bounded cache of decisions. Safe for any thread; a lost race only decides once more."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._kept: dict[Name, _Kept] = {}
        self._lock = threading.Lock()

    def get(self, name: Name, snapshot: Snapshot, now_ms: int) -> Signable | None:
        """Returns the decision, if it was made under this snapshot and is still valid."""
        kept = self._kept.get(name)
        return (
            kept.signable
            if kept is not None and kept.snapshot is snapshot and kept.holds(now_ms)
            else None
        )

    def put(self, name: Name, snapshot: Snapshot, signable: Signable, now_ms: int) -> None:
        """Keep a decision that was made at `now_ms`."""
        with self._lock:
            if len(self._kept) >= self._capacity:
                self._kept.clear()
            self._kept[name] = _Kept(snapshot, min(signable.until_ms, now_ms + KEPT_MS), signable)

    def sweep(self, now_ms: int) -> int:
        """Drop decisions that are no longer valid, with their subkeys. Returns how many."""
        with self._lock:
            over = [name for name, kept in self._kept.items() if not kept.holds(now_ms)]
            for name in over:
                del self._kept[name]
        return len(over)

    def clear(self) -> None:
        """Drop all decisions: the epoch moved."""
        with self._lock:
            self._kept.clear()


def name_of(token: bytes, peer: Peer, group: pb.SignGroup) -> Name:
    """Returns the cache key: what a decision depends on, apart from snapshot and time."""
    context = group.context.SerializeToString()
    return (
        token,
        peer.spiffe_id,
        peer.key_hash,
        group.algorithm,
        group.open_algorithm,
        context,
        group.caller,
        group.expected_kid,
        group.second_kid,
    )
