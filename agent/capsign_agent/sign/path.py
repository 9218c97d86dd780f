"""The signing path of the agent, in eleven numbered steps.

 1 identify the caller by its socket          `front.servicer`: a server for each socket
 2 parse and bound                            `front.servicer`: grpcio, `bounds.check`
 3 find the handle                            here, for each group
 4 hold purpose, algorithm and context        here, for each group
 5 rate limit                                 here, for each group; what is above fails alone
 6 hash                                       here, for each item
 7 journal the intent                         `sign.outcomes`, once for a batch, before it is sent
 8 coalesce upstream                          `upstream.coalesce` and `upstream.streams`
 9 check the answer                           `sign.outcomes`, for each item
10 journal the outcome                        `sign.outcomes`, once for a batch, before it is told
11 reply                                      here, for each item

Three things are kept apart in what a caller hears. *Refused*: it did not and will not happen.
*Unavailable*: it did not happen. *Unknown*: from the moment a batch may have left, silence means
that it may have happened.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Sequence

from capsign_wire import intents
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.algorithms import ALGORITHMS, AlgorithmRow
from capsign_wire.failures import REASONS, FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.handles.rate import Bucket
from capsign_agent.handles.registry import Held, NotYetError, SocketHandles
from capsign_agent.handles.renewal import Hold, look_once
from capsign_agent.journal import records
from capsign_agent.journal.journal import Journal
from capsign_agent.sign import hashing
from capsign_agent.sign.outcomes import Settlement, named
from capsign_agent.sign.public_keys import Context, Known, PublicKeys
from capsign_agent.upstream.coalesce import BATCH_BYTES, ITEM_OVERHEAD, Answer, Call, Coalescer

SLICE = 64
"""Items that are worked on in one go while several sockets sign."""


REFUSALS_PER_SECOND, REFUSALS_AT_ONCE, REFUSAL_LATER_S = 100, 1024, 0.25
"""Items that policy refuses in the pod, of one socket; above that the word comes later, by
seconds.
"""


class _Work:
    """One group on its way: what passed so far, and the results of what did not."""

    __slots__ = (
        "context",
        "group",
        "held",
        "inputs",
        "intents",
        "kid",
        "positions",
        "refused",
        "result",
        "row",
        "whole",
    )

    def __init__(self, group: agent_pb2.SignGroup) -> None:
        self.group = group
        self.result: list[agent_pb2.SignedItem | None] = [None] * len(group.items)
        self.held: Held | None = None
        self.row: AlgorithmRow | None = None
        self.context: Context | None = None
        self.kid = ""
        self.positions: Sequence[int] = ()
        self.refused: Sequence[int] = ()
        """Those that policy refused in the pod, the group as a whole."""
        self.intents: list[bytes] = []
        self.inputs: list[bytes] = []
        self.whole: agent_pb2.SignedGroup | None = None
        """The finished reply, where one answer held all of it."""

    def refuse(self, positions: Iterable[int], error: FailureError) -> None:
        item = agent_pb2.SignedItem(failure=error.to_item())
        for position in positions:
            self.result[position] = item


class SigningPath:
    """Signs for all sockets. For one event loop."""

    def __init__(
        self,
        coalescer: Coalescer,
        journal: Journal,
        settlement: Settlement,
        keys: PublicKeys,
        metrics: Metrics,
        skew_s: float,
        clock: Callable[[], float] = time.time,
        hold: Hold[None] = look_once,
    ) -> None:
        self._coalescer = coalescer
        self._hold = hold
        self._journal = journal
        self._settlement = settlement
        self._keys = keys
        self._metrics = metrics
        self._took = metrics.histogram("capsign.call.duration")
        self._refusals: dict[str, Bucket] = {}
        self._skew_s = skew_s
        self._clock = clock

    async def sign(
        self,
        socket: SocketHandles,
        groups: Sequence[agent_pb2.SignGroup],
        timeout_s: float,
        traceparent: str = "",
    ) -> list[agent_pb2.SignedGroup]:
        """A result for every item of every group, in order. Never raises a FailureError: each item
        carries its own.

        The groups have passed `bounds.check` and hold at most MAX_BATCH_ITEMS items in all. When
        the caller gives up (the task is cancelled), what was not sent is not sent; what was sent is
        still recorded when its answer comes.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + timeout_s
        works = [_Work(group) for group in groups]
        refusals = records.Piece()
        for work in works:
            try:
                try:
                    self._decide(socket, work)
                except NotYetError:
                    await self._hold(
                        functools.partial(self._decide, socket, work), deadline - loop.time()
                    )
                await self._hash(work, deadline)
            except FailureError as error:
                self._refuse_group(socket, work, error, refusals)
        self._record_refusals(socket, refusals, works)
        if refused := len(refusals.records):
            await self._wait_if_over(socket.name, refused, deadline)
        signed_by = await self._exchange(works, deadline, traceparent)
        replies = [
            self._reply(work, made_under) for work, made_under in zip(works, signed_by, strict=True)
        ]
        loop.call_soon(self._measure, works, loop.time() - started)  # once the reply is on its way
        return replies

    def _measure(self, works: Sequence[_Work], took_s: float) -> None:
        for work in works:
            self._took.record(took_s, ALGORITHMS[work.group.algorithm].name)
            if work.whole is not None:
                self._metrics.observe_calls(None, items=len(work.result))
                continue
            failed = [
                item.failure.reason
                for item in work.result
                if item is not None and not item.signature
            ]
            for reason in failed:  # one that a newer adapter gives counts as it is read: INTERNAL
                self._metrics.observe_calls(
                    reason if reason in REASONS else failures_pb2.REASON_INTERNAL
                )
            if len(failed) < len(work.result):
                self._metrics.observe_calls(None, items=len(work.result) - len(failed))

    # Steps 3 to 6: in the pod alone.

    def _decide(self, socket: SocketHandles, work: _Work) -> None:
        """Steps 3, 4 and 5. Raises FailureError if the whole group fails."""
        group = work.group
        now = self._clock()
        work.held = held = socket.find(group.handle_id, now, self._skew_s)  # 3
        suffix, suffix_bytes = held.rule.settle(group.purpose, group.algorithm, group.context)  # 4
        work.row = ALGORITHMS[group.algorithm]
        work.context = Context(held, group.algorithm, suffix, suffix_bytes)
        count = len(group.items)
        granted = held.bucket.take(count, now)  # 5
        work.positions = range(granted)
        if granted < count:
            wait_ms = held.bucket.wait_ms(count - granted)
            error = FailureError(
                failures_pb2.REASON_RATE_LIMITED,
                "The grant's rate is used up.",
                retry_after_ms=wait_ms,
            )
            work.refuse(range(granted, count), error)

    async def _hash(self, work: _Work, deadline: float) -> None:
        """Step 6, and the intent id of each item. Raises FailureError if the whole group fails."""
        assert work.row is not None
        assert work.context is not None
        if work.row.upstream == algorithms_pb2.UPSTREAM_MU:
            known = self._keys.cached(work.context) or await self._fetched(work.context, deadline)
            work.kid, to_input = known.mu()
        else:
            known_hasher = hashing.hasher(work.row)
            assert known_hasher is not None
            to_input = known_hasher
        passed: list[int] = []
        slice_ends = SLICE
        for position in work.positions:
            if position >= slice_ends and self._coalescer.crowded:
                slice_ends = position + SLICE
                await asyncio.sleep(0)  # the loop's turn is for all sockets
            item = work.group.items[position]
            intent_id, kind = item.intent_id, item.WhichOneof("input")
            # a message needs no other look
            if kind == "message" and intents.is_intent_id(intent_id):
                data = to_input(item.message)
            else:
                try:
                    data = _odd_input(work.row, item, kind, to_input)
                except FailureError as error:
                    work.refuse((position,), error)
                    continue
            passed.append(position)
            work.intents.append(intent_id)
            work.inputs.append(data)
        work.positions = passed

    async def _fetched(self, context: Context, deadline: float, newer_than: float = -1.0) -> Known:
        """The public keys of a context, in time. Raises FailureError: nothing was sent to be signed
        yet.
        """
        try:
            async with asyncio.timeout_at(deadline):
                return await self._keys.get(context, newer_than=newer_than)
        except TimeoutError:
            detail = "The public key did not come in time."
            raise FailureError(
                failures_pb2.REASON_UPSTREAM_UNREACHABLE, detail, retry_after_ms=500
            ) from None

    def _refuse_group(
        self, socket: SocketHandles, work: _Work, error: FailureError, refusals: records.Piece
    ) -> None:
        """The group fails as a whole, in the pod. What policy refused is evidence; what only has to
        wait is not.
        """
        open_positions = [at for at, item in enumerate(work.result) if item is None]
        work.refuse(open_positions, error)
        work.positions = ()
        if error.outcome != failures_pb2.OUTCOME_REFUSED:
            return
        work.refused = open_positions
        grant = work.held.grant if work.held is not None else ""
        ids = [work.group.items[position].intent_id for position in open_positions]
        records.failed(
            refusals, ids, grant, work.group.algorithm, socket.name, error.outcome, error.reason
        )

    def _record_refusals(
        self, socket: SocketHandles, refusals: records.Piece, works: Sequence[_Work]
    ) -> None:
        """A refusal is told once it is written down. Where the journal has no room the caller hears
        that instead.
        """
        if not refusals.records:
            return
        try:
            self._journal.refuse(refusals, socket.name)
        except FailureError as error:
            for work in works:
                work.refuse(work.refused, error)

    async def _wait_if_over(self, socket: str, refused: int, deadline: float) -> None:
        """A socket that is refused without end gets the word later: refusals cost the loop that
        serves all sockets.
        """
        now = self._clock()
        bucket = self._refusals.get(socket)
        if bucket is None:
            bucket = self._refusals[socket] = Bucket(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE, now)
        if bucket.take(refused, now) < refused:
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, min(REFUSAL_LATER_S, left)))

    # Steps 7 to 10: the exchange with the adapter; `sign.outcomes` has what is around each batch.

    async def _exchange(
        self, works: Sequence[_Work], deadline: float, traceparent: str
    ) -> list[types_pb2.SignedBy | None]:
        """Step 8: send what passed, wait for the answers until the deadline, put them into the
        works.
        """
        loop = asyncio.get_running_loop()
        pairs: list[tuple[_Work, Sequence[int], Call]] = []
        for work in works:
            pairs += self._submit(work, traceparent)
        made_under: dict[int, types_pb2.SignedBy] = {}
        calls = [call for _, _, call in pairs]
        if not calls:
            return [None] * len(works)
        timer = loop.call_at(deadline, self._expire, calls)
        try:
            for work, positions, call in pairs:
                try:
                    answer = await call.answer
                except FailureError as error:
                    # the future keeps the error, and its traceback would keep us and the request
                    error.__traceback__ = None
                    work.refuse(positions, error)
                    continue
                self._fill(work, positions, answer, made_under)
        except asyncio.CancelledError:
            self._abandon(calls)
            raise
        finally:
            timer.cancel()
        moved = [work for work in works if self._moved(work)]
        if moved:
            await self._again_with_new_key(moved, deadline, traceparent, made_under)
        return [made_under.get(id(work)) for work in works]

    def _submit(self, work: _Work, traceparent: str) -> list[tuple[_Work, Sequence[int], Call]]:
        """Queue what passed of a group, in pieces that fit into a batch."""
        submitted: list[tuple[_Work, Sequence[int], Call]] = []
        context = work.context
        if context is None or not work.intents:
            return submitted
        loop = asyncio.get_running_loop()
        for start, end in _pieces(work.inputs, self._coalescer.piece_items):
            call = Call(
                context.held,
                context.algorithm,
                context.suffix,
                context.suffix_bytes,
                work.kid,
                work.intents[start:end],
                work.inputs[start:end],
                loop.create_future(),
                traceparent,
            )
            positions = work.positions[start:end]
            try:
                self._coalescer.submit(call)
            except FailureError as error:
                work.refuse(positions, error)
            else:
                submitted.append((work, positions, call))
        return submitted

    def _expire(self, calls: Sequence[Call]) -> None:
        """The deadline: what was sent is unknown, what still waits is taken back."""
        for call in calls:
            if call.answer.done():
                continue
            if call.sent:
                self._settlement.lost(call, failures_pb2.REASON_ANSWER_LATE)
            else:
                self._coalescer.withdraw(call)
                detail = "The call was not sent before its deadline."
                call.fail(
                    FailureError(
                        failures_pb2.REASON_UPSTREAM_UNREACHABLE, detail, retry_after_ms=500
                    )
                )

    def _abandon(self, calls: Sequence[Call]) -> None:
        """The caller has gone: nothing more is sent for it. What is under way is settled when its
        stream is done with it.
        """
        for call in calls:
            call.answer.cancel()
            if self._coalescer.withdraw(call) and call.owed:
                self._settlement.lost(call, failures_pb2.REASON_ANSWER_LOST)

    # ML-DSA: mu names one public key, and the key may move while a call is under way.

    def _moved(self, work: _Work) -> bool:
        return (
            bool(work.kid)
            and work.whole is None
            and any(
                item is not None and item.failure.reason == failures_pb2.REASON_KEY_MOVED
                for item in work.result
            )
        )

    async def _again_with_new_key(
        self,
        works: Sequence[_Work],
        deadline: float,
        traceparent: str,
        made_under: dict[int, types_pb2.SignedBy],
    ) -> None:
        """Fetch the new key and send what was refused once more. KEY_MOVED means that nothing
        happened: that is safe.
        """
        loop = asyncio.get_running_loop()
        ready = []
        # nothing is queued before all keys are there: who is cancelled meanwhile has nothing to
        # take back
        for work in works:
            assert work.context is not None
            stale = self._keys.cached(work.context)
            try:
                known = await self._fetched(
                    work.context, deadline, stale.fetched if stale is not None else -1.0
                )
                work.kid, mu = known.mu()
            except FailureError:
                continue  # KEY_MOVED stands: the caller may send the same intent again
            moved = [
                at
                for at, item in enumerate(work.result)
                if item is not None
                and item.failure.reason == failures_pb2.REASON_KEY_MOVED
                and work.group.items[at].HasField("message")
            ]
            work.positions = moved
            work.intents = [work.group.items[at].intent_id for at in moved]
            work.inputs = [mu(work.group.items[at].message) for at in moved]
            ready.append(work)
        pairs = [pair for work in ready for pair in self._submit(work, traceparent)]
        calls = [call for _, _, call in pairs]
        timer = loop.call_at(deadline, self._expire, calls)
        try:
            for work, positions, call in pairs:
                try:
                    answer = await call.answer
                except FailureError as error:
                    # the future keeps the error, and its traceback would keep us and the request
                    error.__traceback__ = None
                    work.refuse(positions, error)
                    continue
                self._fill(work, positions, answer, made_under)
        except asyncio.CancelledError:
            self._abandon(calls)
            raise
        finally:
            timer.cancel()

    # Step 11.

    def _fill(
        self,
        work: _Work,
        positions: Sequence[int],
        answer: Answer,
        made_under: dict[int, types_pb2.SignedBy],
    ) -> None:
        """Put an answer into its places. Pieces of one group may come from two key versions: the
        second names its own.
        """
        if answer.all_signed and answer.group is not None and len(positions) == len(work.result):
            # The whole group at once: agent.v1.SignedGroup has the fields of
            # adapter.v1.SignedGroup, number by number.
            work.whole = agent_pb2.SignedGroup.FromString(answer.group.SerializeToString())
            return
        common = (
            made_under.setdefault(id(work), answer.signed_by) if named(answer.signed_by) else None
        )
        differs = common is not None and common != answer.signed_by
        for position, item in zip(positions, answer.items, strict=True):
            signed = agent_pb2.SignedItem(signature=item.signature, leaf_index=item.leaf_index)
            if not signed.signature:
                signed.failure.CopyFrom(item.failure)
            elif item.HasField("signed_by"):
                signed.signed_by.CopyFrom(item.signed_by)
            elif differs:
                signed.signed_by.CopyFrom(answer.signed_by)
            work.result[position] = signed

    def _reply(self, work: _Work, signed_by: types_pb2.SignedBy | None) -> agent_pb2.SignedGroup:
        if work.whole is not None:
            return work.whole
        items = [item for item in work.result if item is not None]
        assert len(items) == len(work.result)
        return agent_pb2.SignedGroup(signed_by=signed_by, items=items)


def _odd_input(
    row: AlgorithmRow,
    item: agent_pb2.SignItem,
    kind: str | None,
    to_input: Callable[[bytes], bytes],
) -> bytes:
    """The input of an item that is no plain message with a good intent id. Raises
    INPUT_MALFORMED.
    """
    intents.millis_of(item.intent_id)
    if kind is None:
        raise FailureError(
            failures_pb2.REASON_INPUT_MALFORMED,
            "The item has neither message nor digest.",
            field="input",
        )
    if kind == "message":
        return to_input(item.message)
    hashing.check_digest(row, item.digest)
    return item.digest


def _pieces(inputs: Sequence[bytes], most: int) -> Iterable[tuple[int, int]]:
    """Cut inputs so that each piece fits into one batch by bytes, and has so many of them at
    most.
    """
    start = size = 0
    for at, data in enumerate(inputs):
        cost = len(data) + ITEM_OVERHEAD
        if (size + cost > BATCH_BYTES and at > start) or at - start == most:
            yield start, at
            start, size = at, 0
        size += cost
    yield start, len(inputs)
