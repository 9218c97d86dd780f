"""What is to be told of the calls of a batch, gathered so that one record tells of as many as it
can (docs/decisions/0088-a-record-tells-of-many-calls.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

from capsign_agent.journal import records
from capsign_agent.upstream.call import Call

_Of = tuple[str, algorithms_pb2.Algorithm.ValueType]
"""Grant and algorithm, which a record has once for all its calls."""
_Why = tuple[failures_pb2.Outcome.ValueType, failures_pb2.Reason.ValueType]


class _Run:
    """Signed calls whose leaves follow one another."""

    __slots__ = ("elapsed_ms", "first", "ids", "next")

    def __init__(self, first: int) -> None:
        self.first = self.next = first
        self.ids: list[bytes] = []
        self.elapsed_ms = 0


class Told:
    """Of the calls of one socket, in their order."""

    __slots__ = ("_done", "_failed", "_intents", "calls")

    def __init__(self) -> None:
        self.calls = 0
        """Of how many calls it tells."""
        self._intents: dict[_Of, list[bytes]] = {}
        self._done: dict[_Of, list[_Run]] = {}
        self._failed: dict[tuple[_Of, _Why], list[bytes]] = {}

    def intents(self, call: Call) -> None:
        """They are about to be sent."""
        self.calls += len(call.intents)
        self._intents.setdefault((call.held.grant, call.algorithm), []).extend(call.intents)

    def done(self, call: Call, leaves: Sequence[int], elapsed_ms: int) -> None:
        """All its items were signed, with these leaves."""
        first = leaves[0]
        if leaves != [*range(first, first + len(leaves))]:
            for intent_id, leaf in zip(call.intents, leaves, strict=True):
                self.one_done(call, intent_id, leaf, elapsed_ms)
            return
        self._add(call, call.intents, first, elapsed_ms)

    def one_done(self, call: Call, intent_id: bytes, leaf: int, elapsed_ms: int) -> None:
        """One of its items was signed."""
        self._add(call, (intent_id,), leaf, elapsed_ms)

    def failed(
        self,
        call: Call,
        intent_id: bytes,
        outcome: failures_pb2.Outcome.ValueType,
        reason: failures_pb2.Reason.ValueType,
    ) -> None:
        """One of its items was not signed, or it is not known whether it was."""
        self.calls += 1
        of = (call.held.grant, call.algorithm)
        self._failed.setdefault((of, (outcome, reason)), []).append(intent_id)

    def piece(self, caller: str) -> records.Piece:
        """The records, fewest; `caller` is the name of the socket."""
        piece = records.Piece()
        for of, ids in self._intents.items():
            records.intents(piece, ids, *of, caller)
        for of, runs in self._done.items():
            for run in runs:
                records.done(piece, run.ids, run.first, *of, caller, run.elapsed_ms)
        for (of, why), ids in self._failed.items():
            records.failed(piece, ids, *of, caller, *why)
        return piece

    def _add(self, call: Call, ids: Sequence[bytes], first: int, elapsed_ms: int) -> None:
        self.calls += len(ids)
        runs = self._done.setdefault((call.held.grant, call.algorithm), [])
        if not runs or runs[-1].next != first:
            runs.append(_Run(first))
        run = runs[-1]
        run.ids.extend(ids)
        run.next += len(ids)
        if elapsed_ms > run.elapsed_ms:
            run.elapsed_ms = elapsed_ms
