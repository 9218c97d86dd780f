"""Step 8, for a call: queues it in pieces and waits for their answers until its deadline.

Steps 7, 9 and 10 are done for each batch meanwhile, see `outcomes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.sign.group_work import GroupWork
from capsign_agent.sign.inputs import Inputs
from capsign_agent.sign.outcomes import OutcomeRecorder
from capsign_agent.upstream.batch import BATCH_BYTES
from capsign_agent.upstream.call import ITEM_OVERHEAD, NO_SECOND, Call, SecondInputs
from capsign_agent.upstream.coalesce import Coalescer

_Piece = tuple[GroupWork, Sequence[int], Call]
"""Items of a group, by their positions, that were queued as one `Call`."""

_ALONE = ((0, 1),)
"""The piece of a group that has one item."""


class Exchange:
    """Sends the calls of all sockets. For one event loop."""

    def __init__(self, coalescer: Coalescer, outcomes: OutcomeRecorder, inputs: Inputs) -> None:
        self._coalescer = coalescer
        self._outcomes = outcomes
        self._inputs = inputs

    async def run(self, works: Sequence[GroupWork], deadline: float, traceparent: str) -> None:
        """Send the items of these groups that have passed so far, and put the results into the
        groups. If the caller gives up (the task is cancelled), what was not sent is withdrawn.
        """
        await self._send(works, deadline, traceparent)
        rotated: list[GroupWork] = []
        for work in works:
            if work.kid and work.waiting_for_new_key():
                rotated.append(work)  # noqa: PERF401 # nearly always there is none, and no list
        if rotated:
            await self._send_anew(rotated, deadline, traceparent)

    async def _send(self, works: Iterable[GroupWork], deadline: float, traceparent: str) -> None:
        pieces: list[_Piece] = []
        for work in works:
            self._submit(work, traceparent, pieces)
        if not pieces:
            return
        timer = asyncio.get_running_loop().call_at(deadline, self._expire, pieces)
        try:
            for work, positions, call in pieces:
                try:
                    answer = await call.answer
                except FailureError as error:
                    # the future keeps the error, and its traceback would keep us and the request
                    error.__traceback__ = None
                    work.refuse(positions, error)
                    continue
                work.fill(positions, answer)
        except asyncio.CancelledError:
            self._abandon(pieces)
            raise
        finally:
            timer.cancel()

    async def _send_anew(
        self, works: Sequence[GroupWork], deadline: float, traceparent: str
    ) -> None:
        """Fetch the new key, and send once more what was refused with KEY_SUPERSEDED. That refusal
        means that nothing was signed.
        """
        ready = []
        # nothing is queued before all keys are there: who is cancelled meanwhile has nothing to
        # take back
        for work in works:
            try:
                await self._inputs.prepare_anew(work, deadline)
            except FailureError:
                continue  # KEY_SUPERSEDED stands: the caller may send the same intent again
            ready.append(work)
        await self._send(ready, deadline, traceparent)

    def _submit(self, work: GroupWork, traceparent: str, pieces: list[_Piece]) -> None:
        """Queue the items of a group that have passed, in pieces that fit into a batch; adds these
        to `pieces`.
        """
        scope = work.scope
        if scope is None or not work.intents:
            return
        loop = asyncio.get_running_loop()
        alone = len(work.inputs) == 1
        for start, end in _ALONE if alone else _cuts(_sizes(work), self._coalescer.piece_items):
            second = NO_SECOND
            if work.seconds or work.digests:
                seconds, digests = work.seconds[start:end], work.digests[start:end]
                second = SecondInputs(work.second_kid, seconds, digests)
            call = Call(
                scope,
                work.kid,
                work.intents[start:end],
                work.inputs[start:end],
                loop.create_future(),
                traceparent,
                second,
            )
            positions = work.positions[start:end]
            try:
                self._coalescer.submit(call)  # 8
            except FailureError as error:
                work.refuse(positions, error)
            else:
                pieces.append((work, positions, call))

    def _expire(self, pieces: Sequence[_Piece]) -> None:
        """The deadline has passed: what was sent becomes unknown, what still waits is withdrawn."""
        for _, _, call in pieces:
            if call.answer.done():
                continue
            if call.sent:
                self._outcomes.lost(call, failures_pb2.REASON_ANSWER_LATE)
            else:
                self._coalescer.withdraw(call)
                detail = "The call was not sent before its deadline."
                reason = failures_pb2.REASON_UPSTREAM_UNREACHABLE
                call.fail(FailureError(reason, detail, retry_after_ms=500))

    def _abandon(self, pieces: Sequence[_Piece]) -> None:
        """The caller has given up: withdraw what was not sent. The outcome of what was sent is
        recorded when its stream has it.
        """
        for _, _, call in pieces:
            call.answer.cancel()
            if self._coalescer.withdraw(call) and call.owed:
                self._outcomes.lost(call, failures_pb2.REASON_ANSWER_LOST)


def _sizes(work: GroupWork) -> Sequence[int]:
    """What each item weighs in a batch, bytes."""
    if work.seconds:
        both = zip(work.inputs, work.seconds, strict=True)
        return [len(one) + len(other) + 3 * ITEM_OVERHEAD for one, other in both]
    overhead = 3 * ITEM_OVERHEAD if work.digests else ITEM_OVERHEAD
    return [len(data) + overhead for data in work.inputs]


def _cuts(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Start and end of each piece, so that it fits into a batch by bytes and has `most` inputs at
    most.
    """
    start = size = 0
    for at, cost in enumerate(sizes):
        if (size + cost > BATCH_BYTES and at > start) or at - start == most:
            yield start, at
            start, size = at, 0
        size += cost
    yield start, len(sizes)
