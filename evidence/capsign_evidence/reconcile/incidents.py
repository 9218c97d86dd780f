"""Incidents that stand, and how they change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from capsign_evidence.incident_leaf import PASSING, IncidentKind, IncidentLeaf, IncidentState

MAX_STANDING = 768
"""Most incidents that stand at once and do not pass. What is found beyond that is not told until
others have ended: signatures and a cut tail are found again then, and the rest waits (FOUND_ONCE).
"""

FOUND_ONCE = frozenset(
    {
        IncidentKind.REPORTED_NOT_SIGNED,
        IncidentKind.GAP,
        IncidentKind.SPLIT_VIEW,
        IncidentKind.FORGED_CHAIN,
        IncidentKind.REPLAYED_BATCH,
        IncidentKind.BATCH_LOST,
        IncidentKind.ROLLED_BACK,
    }
)
"""What one record or batch shows, and nothing later shows again."""

MAX_OF_WORKLOAD = 64
"""Most of them that are about one workload: who invents lives keeps nobody else's from being
told.
"""

MAX_PASSING, MAX_PASSING_OF_WORKLOAD = 255, 32
"""The same of the kinds that pass: what pages nobody takes no place from what does. With the one of
FORGOTTEN they fit into one answer, 1,024.
"""

MAX_UNTOLD = 4096
"""Most incidents that are remembered because there was no room to tell them."""

MAX_COUNT = (1 << 32) - 1

MAX_SEQUENCE = (1 << 53) - 1
"""What agents may count to; older logs can have records that name more, and no store takes that."""


class IncidentKey(NamedTuple):
    """What names an incident; see `IncidentLeaf`."""

    kind: IncidentKind
    workload: str = ""
    boot_id: bytes = b""
    digest: bytes = b""


FORGOTTEN = IncidentKey(IncidentKind.INCIDENTS_FORGOTTEN)
"""How often something that nothing shows again found no room among those that wait either. It
always has room itself, and stands until a person closes it.
"""


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident that stands, or one that has ended. Fields as in `IncidentLeaf`."""

    kind: IncidentKind
    workload: str
    boot_id: bytes
    digest: bytes
    intent_id: bytes
    leaf_index_plus_one: int
    first: int
    last: int
    count: int
    since_ms: int

    @property
    def key(self) -> IncidentKey:
        return IncidentKey(self.kind, self.workload, self.boot_id, self.digest)

    def entry(self, state: IncidentState, time_ms: int, policy_digest: bytes) -> bytes:
        """The entry of the log that says that it was found, or has ended."""
        return IncidentLeaf(
            time_ms,
            policy_digest,
            self.kind,
            state,
            self.workload,
            self.boot_id,
            self.digest,
            self.intent_id,
            self.leaf_index_plus_one,
            self.first,
            self.last,
            self.count,
            self.since_ms,
        ).encode()


def signature_without_leaf(signature_hash: bytes, now_ms: int) -> Incident:
    """A relying party holds the signature with this SHA-256, and no entry is about it."""
    kind = IncidentKind.SIGNATURE_WITHOUT_LEAF
    return Incident(kind, "", b"", signature_hash, b"", 0, 0, 0, 1, now_ms)


class Change(NamedTuple):
    """An incident was found, or has ended."""

    state: IncidentState
    incident: Incident


class Standing:
    """The incidents that stand, and the changes that nobody has taken yet."""

    def __init__(
        self, incidents: Iterable[Incident] = (), waiting: Iterable[Incident] = ()
    ) -> None:
        """`waiting`: what another one had found and had no room for; it is told if there is now."""
        self._by_key = {one.key: one for one in incidents}
        self._of = Counter((one.kind in PASSING, one.workload) for one in self._by_key.values())
        self._all = Counter(one.kind in PASSING for one in self._by_key.values())
        self._changes: list[Change] = []
        self._untold = {one.key: one for one in waiting if one.key not in self._by_key}
        """The oldest first."""
        self._tell_waiting()

    def __iter__(self) -> Iterator[Incident]:
        return iter(self._by_key.values())

    def has(self, key: IncidentKey) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def untold(self) -> int:
        """How many were found while there was no room, and are not told: at most MAX_UNTOLD that
        can be named yet, and those that were forgotten (FORGOTTEN).
        """
        forgotten = self._by_key.get(FORGOTTEN)
        return len(self._untold) + (forgotten.count if forgotten is not None else 0)

    def _full(self, key: IncidentKey) -> bool:
        """Whether there is no room for this one."""
        if key == FORGOTTEN:
            return False
        passes = key.kind in PASSING
        most, of_one = (
            (MAX_PASSING, MAX_PASSING_OF_WORKLOAD) if passes else (MAX_STANDING, MAX_OF_WORKLOAD)
        )
        crowded = bool(key.workload) and self._of[passes, key.workload] >= of_one
        return crowded or self._all[passes] >= most

    def found(
        self,
        key: IncidentKey,
        since_ms: int,
        *,
        intent_id: bytes = b"",
        leaf_index: int = -1,
        span: tuple[int, int] = (0, 0),
        count: int = 1,
    ) -> bool:
        """It is there: newly, or it grew by `count`. Returns whether it stands: not if there is no
        room.
        """
        span = (min(span[0], MAX_SEQUENCE), min(span[1], MAX_SEQUENCE))
        known = self._by_key.get(key)
        if known is not None:
            grown = min(known.count + count, MAX_COUNT)
            last = max(known.last, span[1])
            self._by_key[key] = replace(known, count=grown, last=last)
            return True
        fresh = Incident(
            *key, intent_id, leaf_index + 1, *span, min(max(count, 0), MAX_COUNT), since_ms
        )
        if not self._full(key):
            self._untold.pop(key, None)
            self._stand(fresh)
            return True
        waiting = self._untold.get(key)
        if waiting is not None:
            grown, last = min(waiting.count + count, MAX_COUNT), max(waiting.last, span[1])
            self._untold[key] = replace(waiting, count=grown, last=last)
        elif len(self._untold) < MAX_UNTOLD:
            self._untold[key] = fresh
        elif key.kind in FOUND_ONCE:
            self.found(FORGOTTEN, since_ms, leaf_index=leaf_index)
        return False

    def ended(self, key: IncidentKey) -> None:
        """It is not there any more; nothing if it was not."""
        self._untold.pop(key, None)
        gone = self._by_key.pop(key, None)
        if gone is not None:
            self._count(key, -1)
            self._changes.append(Change(IncidentState.ENDED, gone))
            self._tell_waiting()

    def _stand(self, incident: Incident) -> None:
        self._by_key[incident.key] = incident
        self._count(incident.key, 1)
        self._changes.append(Change(IncidentState.FOUND, incident))

    def _tell_waiting(self) -> None:
        """Tell what is found once and waits, the oldest first, as far as there is room now."""
        for key, incident in list(self._untold.items()):
            if key.kind in FOUND_ONCE and not self._full(key):
                del self._untold[key]
                self._stand(incident)

    def _count(self, key: IncidentKey, by: int) -> None:
        passes = key.kind in PASSING
        self._all[passes] += by
        self._of[passes, key.workload] += by
        if not self._of[passes, key.workload]:
            del self._of[passes, key.workload]

    def waiting(self) -> list[Incident]:
        """What is found once and waits for room, the oldest first; at most MAX_UNTOLD."""
        return [one for one in self._untold.values() if one.kind in FOUND_ONCE]

    def take_changes(self) -> list[Change]:
        """What changed since this was called last, in order."""
        taken, self._changes = self._changes, []
        return taken
