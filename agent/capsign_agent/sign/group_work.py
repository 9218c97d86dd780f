"""One group of a call on its way: what has passed so far, the results, and at the end the reply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.handles.held_handle import HeldHandle
from capsign_agent.handles.scope import HandleScope
from capsign_agent.upstream.call import Answer


class GroupWork:
    """Items stand at the same place in `group.items` and in `results`; `positions` are the places
    of those that go on, `intents` and `inputs` what is sent for each of them.
    """

    __slots__ = (
        "group",
        "held",
        "inputs",
        "intents",
        "kid",
        "positions",
        "refusal",
        "refused",
        "results",
        "row",
        "scope",
        "signed_by",
        "whole",
    )

    def __init__(self, group: agent_pb2.SignGroup) -> None:
        self.group = group
        self.results: list[types_pb2.SignedItem | None] = [None] * len(group.items)
        self.held: HeldHandle | None = None
        self.row: AlgorithmRow | None = None
        self.scope: HandleScope | None = None
        self.kid = ""
        """ML-DSA: the key that the inputs are made for."""
        self.positions: Sequence[int] = ()
        self.intents: list[bytes] = []
        self.inputs: list[bytes] = []
        self.refusal: FailureError | None = None
        """Why policy refused the group in the pod, and `refused` the items that it refused."""
        self.refused: Sequence[int] = ()
        self.signed_by: list[types_pb2.SignedBy] = []
        """What the signatures were made under, each once: their `key` is its place."""
        self.whole: types_pb2.SignedGroup | None = None
        """The finished reply, where one answer held all of it."""

    def refuse(self, positions: Iterable[int], error: FailureError) -> None:
        """These items fail with this error."""
        item = types_pb2.SignedItem(failure=error.to_item())
        for position in positions:
            self.results[position] = item

    def fail(self, error: FailureError) -> None:
        """The group fails as a whole, in the pod: every item that has no result yet. What policy
        refused is noted in `refused`; what only has to wait is no refusal.
        """
        open_positions = [at for at, item in enumerate(self.results) if item is None]
        self.refuse(open_positions, error)
        self.positions = ()
        if error.outcome == failures_pb2.OUTCOME_REFUSED:
            self.refusal, self.refused = error, open_positions

    def waiting_for_new_key(self) -> list[int]:
        """ML-DSA: the items that were refused because the key was rotated meanwhile."""
        if not self.kid or self.whole is not None:
            return []
        return [
            at
            for at, item in enumerate(self.results)
            if item is not None and item.failure.reason == failures_pb2.REASON_KEY_SUPERSEDED
        ]

    def fill(self, positions: Sequence[int], answer: Answer) -> None:
        """Put the items of one answer into their places. Pieces of one group may come
        from two key versions: the reply names both.
        """
        if answer.all_signed and answer.group is not None and len(positions) == len(self.results):
            self.whole = answer.group
            return
        places = [self._place_of(each) for each in answer.signed_by]
        moved = places != list(range(len(places)))
        for position, item in zip(positions, answer.items, strict=True):
            self.results[position] = _renumbered(item, places) if moved else item

    def _place_of(self, signed_by: types_pb2.SignedBy) -> int:
        """Where the reply names this, from now on."""
        if signed_by not in self.signed_by:
            self.signed_by.append(signed_by)
        return self.signed_by.index(signed_by)

    def reply(self) -> types_pb2.SignedGroup:
        """The reply to the group. Every item has its result by now."""
        if self.whole is not None:
            return self.whole  # 11
        items = [item for item in self.results if item is not None]
        assert len(items) == len(self.results)
        signed_by = self.signed_by if any(item.signatures for item in items) else ()
        return types_pb2.SignedGroup(signed_by=signed_by, items=items)  # 11


def _renumbered(item: types_pb2.SignedItem, places: Sequence[int]) -> types_pb2.SignedItem:
    """The item in a reply that names its keys at these places."""
    moved = types_pb2.SignedItem()
    moved.CopyFrom(item)
    for signature in moved.signatures:
        signature.key = places[signature.key]
    return moved
