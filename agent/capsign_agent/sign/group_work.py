"""One group of a call on its way through the steps: the items that go on, the results, and the
reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.handles.held_handle import HeldHandle
from capsign_agent.handles.scope import HandleScope
from capsign_agent.upstream.call import Answer


class Asked(Protocol):
    """What a group says of all its items: a `SignGroup`, or a `SignRequest`."""

    handle_id: str
    purpose: str
    algorithm: algorithms_pb2.Algorithm.ValueType
    open_algorithm: bool

    @property
    def context(self) -> types_pb2.ContextSuffix: ...


class GroupWork:
    """`results` has the order of `items`. `positions` are the indices of the items that go
    on; `intents`, `inputs`, `seconds` and `digests` are what is sent for each of those.
    """

    __slots__ = (
        "digests",
        "group",
        "held",
        "inputs",
        "intents",
        "items",
        "kid",
        "positions",
        "refusal",
        "refused",
        "results",
        "row",
        "scope",
        "second_kid",
        "seconds",
        "signed",
        "signed_by",
        "whole",
    )

    def __init__(self, group: Asked, items: Sequence[agent_pb2.SignItem]) -> None:
        self.group = group
        self.items = items
        self.results: list[types_pb2.SignedItem | None] = [None] * len(items)
        self.held: HeldHandle | None = None
        self.row: AlgorithmRow | None = None
        """The algorithm's; None while it is open."""
        self.scope: HandleScope | None = None
        self.kid = self.second_kid = ""
        """The ids of the keys for which the inputs were made, where they fit no other: with ML-DSA,
        and where the algorithm is open. The second is empty if one key signs, or takes the same.
        """
        self.positions: Sequence[int] = ()
        self.intents: list[bytes] = []
        self.inputs: list[bytes] = []
        self.seconds: list[bytes] = []
        """Inputs for the second key; empty if there is none."""
        self.digests: list[bytes] = []
        """SHA-256 of the messages, where the algorithm is open; otherwise empty."""
        self.refusal: FailureError | None = None
        """Why policy refused the group in the pod; `refused` are the indices of the items that it
        refused.
        """
        self.refused: Sequence[int] = ()
        self.signed = 0
        """How many items are known to be signed: those of answers in which all are."""
        self.signed_by: list[types_pb2.SignedBy] = []
        """The keys that signed, each once. `key` of a signature is an index into this list."""
        self.whole: types_pb2.SignedGroup | None = None
        """The adapter's message as the reply, if one answer held the whole group."""

    def refuse(self, positions: Iterable[int], error: FailureError) -> None:
        """Give these items this failure as their result."""
        item = types_pb2.SignedItem(failure=error.to_item())
        for position in positions:
            self.results[position] = item

    def fail(self, error: FailureError) -> None:
        """Give every item that has no result this failure. If policy refused them, they are noted
        in `refused`.
        """
        open_positions = [at for at, item in enumerate(self.results) if item is None]
        self.refuse(open_positions, error)
        self.positions = ()
        if error.outcome == failures_pb2.OUTCOME_REFUSED:
            self.refusal, self.refused = error, open_positions

    def waiting_for_new_key(self) -> list[int]:
        """The items that were refused because other keys sign than those of their inputs."""
        if not self.kid or self.whole is not None:
            return []
        return [
            at
            for at, item in enumerate(self.results)
            if item is not None and item.failure.reason == failures_pb2.REASON_KEY_SUPERSEDED
        ]

    def fill(self, positions: Sequence[int], answer: Answer) -> None:
        """Put the items of one answer into their places. If the pieces of a group were signed by
        two key versions, the reply names both.
        """
        if answer.all_signed:
            self.signed += len(positions)
            if answer.group is not None and len(positions) == len(self.results):
                self.whole = answer.group
                return
        places: Sequence[int] = ()
        moved = False
        if len(answer.signed_by) == 1 and not self.signed_by:  # nearly always
            self.signed_by.append(answer.signed_by[0])
        else:
            places = [self._place_of(each) for each in answer.signed_by]
            moved = places != list(range(len(places)))
        for position, item in zip(positions, answer.items, strict=True):
            self.results[position] = _renumbered(item, places) if moved else item

    def _place_of(self, signed_by: types_pb2.SignedBy) -> int:
        """The index of this key in the reply's `signed_by`; it is added if it is new."""
        if signed_by not in self.signed_by:
            self.signed_by.append(signed_by)
        return self.signed_by.index(signed_by)

    def reply(self) -> types_pb2.SignedGroup:
        """The reply to the group. Every item must have its result."""
        if self.whole is not None:
            return self.whole  # 11
        reply = types_pb2.SignedGroup()
        self.reply_into(reply)
        return reply

    def reply_into(self, reply: types_pb2.SignedGroup) -> None:
        """Make this message the reply to the group. Every item must have its result."""
        if self.whole is not None:
            reply.CopyFrom(self.whole)  # 11
            return
        signed = False
        for item in self.results:
            assert item is not None
            reply.items.append(item)  # 11
            signed = signed or bool(item.signatures)
        if signed:
            reply.signed_by.extend(self.signed_by)


def _renumbered(item: types_pb2.SignedItem, places: Sequence[int]) -> types_pb2.SignedItem:
    """A copy of the item with its key indices replaced by those of the reply."""
    moved = types_pb2.SignedItem()
    moved.CopyFrom(item)
    for signature in moved.signatures:
        signature.key = places[signature.key]
    return moved
