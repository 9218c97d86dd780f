"""Many calls of which an agent says the same, settled together: a few steps over whole columns,
where `Signatures.told` takes some for each call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count, repeat
from operator import itemgetter
from typing import Any, NamedTuple

from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import failures_pb2

from capsign_evidence.reconcile import state
from capsign_evidence.reconcile.state import Workload, bound

_INTENT = int(pb.AUDIT_KIND_INTENT)
_DONE = failures_pb2.OUTCOME_DONE
_INDEX = itemgetter(0)


class Told(NamedTuple):
    """What is said of each of the calls."""

    kind: int
    outcome: int
    named: int
    """The entry that is named for the first, plus one; 0: none."""
    step: int
    """What is added to it for each that follows."""


def each(intent_ids: Sequence[bytes], told: Told) -> Iterator[tuple[int, int, bytes, int]]:
    """The calls one by one: kind, outcome, intent id, and the entry that is named, plus one."""
    leaves = count(told.named, told.step)
    return zip(repeat(told.kind), repeat(told.outcome), intent_ids, leaves, strict=False)


def settled(mine: Workload, intent_ids: Sequence[bytes], told: Told) -> int | None:
    """Settle the calls, and return the last entry that was named, plus one (0 for none): if each is
    about a signature that waits for just that. Else None, and nothing has changed.
    """
    if told.kind == _INTENT:
        return 0 if _asked(mine, intent_ids) else None
    if told.outcome == _DONE and _done(mine, intent_ids, told):
        return told.named + told.step * (len(intent_ids) - 1)
    return None


def _asked(mine: Workload, intent_ids: Sequence[bytes]) -> bool:
    """Whether all are signed under one certificate key and not late; then they are reported now."""
    key = mine.where.get(intent_ids[0])
    if key is None or {*map(mine.where.get, intent_ids)} != {key}:
        return False
    fresh, different = mine.groups[key].fresh, {*intent_ids}
    if len(different) < len(intent_ids) or not fresh.keys() >= different:
        return False
    found = map(_INDEX, map(fresh.pop, intent_ids))
    mine.signed.update(zip(intent_ids, found, strict=True))
    _drop(mine.where, intent_ids)
    bound(mine.signed, state.MAX_SIGNED)
    return True


def _done(mine: Workload, intent_ids: Sequence[bytes], told: Told) -> bool:
    """Whether all are reported, and signed by the entries that are named; then they are done."""
    first = told.named - 1
    leaves = range(first, first + len(intent_ids))
    if not told.step or [*map(mine.signed.get, intent_ids)] != [*leaves]:
        return False
    if not mine.asked.keys().isdisjoint(intent_ids):
        return False
    _drop(mine.signed, intent_ids)
    return True


def _drop(table: dict[bytes, Any], intent_ids: Sequence[bytes]) -> None:
    deque(map(table.pop, intent_ids), maxlen=0)
