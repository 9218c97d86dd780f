"""Intents: the draft of an item, the ledger's answer to it, and its stored row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from itertools import repeat
from typing import NamedTuple

from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.lifecycle import IntentEvent, IntentState


class Draft(NamedTuple):
    """One decided item, ready to commit.

    `leaf` is the encoded entry that goes into the log if the intent is new; `refusal_leaf(reason)`
    makes the entry that goes in instead if the ledger refuses it (conflict, never, expired, uses
    exhausted). `result` is the stored answer, see `store/stored_result`.
    """

    workload: str
    intent_id: bytes
    fingerprint: bytes
    grant: str
    event: IntentEvent
    result: bytes
    leaf: bytes
    refusal_leaf: Callable[[failures_pb2.Reason.ValueType], bytes]
    handle_serial: bytes = b""
    max_uses: int = 0
    late: bool = False
    """The id is older than the retention by the clock of the replica that decided: only a row that
    is there may answer for it.
    """


class Verdict(IntEnum):
    """The ledger's answer to a draft."""

    NEW = 1
    """It was inserted and sequenced: release the result."""
    REPLAY = 2
    """The same intent was committed before: release `stored` instead. No new leaf."""
    REFUSED = 3
    """The ledger refuses it for `reason`; a refusal leaf was sequenced. Release nothing."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A final row of the ledger."""

    state: IntentState
    grant: str
    result: bytes
    leaf_index: int


class Committed(NamedTuple):
    """The outcome of a draft. For a replay, `leaf_index` is that of the original leaf."""

    verdict: Verdict
    leaf_index: int
    stored: Stored | None = None
    reason: failures_pb2.Reason.ValueType = failures_pb2.REASON_UNSPECIFIED


_NEWS = partial(tuple.__new__, Committed)


def all_new(first_index: int, count: int) -> list[Committed]:
    """Returns the outcomes of so many drafts whose leaves begin at this index, each of them new."""
    indices = range(first_index, first_index + count)
    unset = repeat(None), repeat(failures_pb2.REASON_UNSPECIFIED)
    return list(map(_NEWS, zip(repeat(Verdict.NEW), indices, *unset)))
