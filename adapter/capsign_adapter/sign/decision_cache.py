"""Groups that were decided a moment ago: the same handle, of the same peer, asked in the same way,
under the same snapshot.

A decision is a function of these and of the time, and the time matters to it only through the
moment until which the handle lives. So it is kept for a second, or until that moment if it comes
first. A revocation changes the snapshot, and every answer.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from capsign_wire.adapter.v1 import signing_pb2 as pb

from capsign_adapter.decide.peer import Peer
from capsign_adapter.sign.scope import Signable
from capsign_adapter.sign.snapshot import Snapshot

KEPT_MS = 1000
"""Longest time for which a decision is used again: it must not stretch the life of a subkey in
memory by more.
"""

CAPACITY = 4096
"""Most decisions kept; at the bound all are forgotten."""

Name = tuple[bytes, str, bytes, int, bytes, str, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    snapshot: Snapshot
    until_ms: int
    signable: Signable

    def holds(self, now_ms: int) -> bool:
        """Not over, and not made in what is the future now: a clock that was put back must not make
        it live longer.
        """
        return now_ms < self.until_ms <= now_ms + KEPT_MS


class DecisionCache:
    """A bounded memory of decisions. Safe to share between threads: a lost race decides once
    more.
    """

    def __init__(self) -> None:
        self._kept: dict[Name, _Kept] = {}
        self._lock = threading.Lock()

    def get(self, name: Name, snapshot: Snapshot, now_ms: int) -> Signable | None:
        """The decision, if it was made under this snapshot and still holds."""
        kept = self._kept.get(name)
        return (
            kept.signable
            if kept is not None and kept.snapshot is snapshot and kept.holds(now_ms)
            else None
        )

    def put(self, name: Name, snapshot: Snapshot, signable: Signable, now_ms: int) -> None:
        """Remember a decision that was made just now."""
        with self._lock:
            if len(self._kept) >= CAPACITY:
                self._kept.clear()
            self._kept[name] = _Kept(snapshot, min(signable.until_ms, now_ms + KEPT_MS), signable)

    def sweep(self, now_ms: int) -> int:
        """Let go of what no longer holds, and of the subkeys in it; how many."""
        with self._lock:
            over = [name for name, kept in self._kept.items() if not kept.holds(now_ms)]
            for name in over:
                del self._kept[name]
        return len(over)

    def clear(self) -> None:
        """Forget everything: the epoch moved."""
        with self._lock:
            self._kept.clear()


def name_of(token: bytes, peer: Peer, group: pb.SignGroup) -> Name:
    """What a decision depends on, apart from snapshot and time."""
    context = group.context.SerializeToString()
    return (
        token,
        peer.spiffe_id,
        peer.key_hash,
        group.algorithm,
        context,
        group.caller,
        group.expected_kid,
    )
