"""Gathers calls into batches while every stream is busy.

A call that finds an idle stream is sent at once. While all are busy, calls gather; the stream that
becomes free first takes as many as fit. So one call alone waits for nothing, and a thousand pay for
one commit. Calls under the same handle, algorithm, context and key merge into one group. The queue
is bounded by items and bytes; the age of what is in it by each call's deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.bounds import ADAPTER_REQUEST_BYTES, MAX_BATCH_ITEMS
from capsign_wire.failures import FailureError
from capsign_wire.trace_context import gathered
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.handles.registry import Held
from capsign_agent.upstream.fair_queue import FairQueue

BATCH_BYTES = ADAPTER_REQUEST_BYTES - 32 * 1024
"""Most bytes in a batch, by `Call.cost` and what each group adds: what a single call adds beyond
that
(its handle, its context) stays under what every adapter takes.
"""

CROWDED_ITEMS = 32
"""Most items in a batch, and in a call, while several sockets sign: whoever asks for one signature
waits for no larger batch.
"""

CROWDED_S = 1.0
"""How long a socket counts after its last call."""

QUANTUM = 32
"""What a socket may send in one round while others wait: items, and KiB."""

ITEM_OVERHEAD = 48
"""Bytes that an item adds to its input on the wire and in memory, rounded up."""

GROUP_OVERHEAD = 256
"""Bytes that a group adds to its handle and context on the wire, rounded up."""

MAX_GROUPS = 256
"""Most groups, and most handles, in a batch."""


class Call:
    """Items that go upstream together, under one handle, algorithm and context. At most
    MAX_BATCH_ITEMS and BATCH_BYTES.

    `answer` gets the items' results, or a FailureError that holds for all of them. It is set once;
    the call stays in its batch when its caller has given up, so that what comes back is still
    recorded.
    """

    __slots__ = (
        "algorithm",
        "answer",
        "attempts",
        "cost",
        "expected_kid",
        "group_cost",
        "held",
        "inputs",
        "intents",
        "journalled",
        "key",
        "queued_at",
        "sent",
        "settled",
        "suffix",
        "token",
        "traceparent",
    )

    def __init__(
        self,
        held: Held,
        algorithm: algorithms_pb2.Algorithm.ValueType,
        suffix: types_pb2.ContextSuffix,
        suffix_bytes: bytes,
        expected_kid: str,
        intents: Sequence[bytes],
        inputs: Sequence[bytes],
        answer: asyncio.Future[Answer],
        traceparent: str = "",
    ) -> None:
        self.held = held
        self.algorithm = algorithm
        self.suffix = suffix
        self.expected_kid = expected_kid
        self.intents = intents
        self.inputs = inputs
        self.answer = answer
        self.traceparent = traceparent
        self.key = (held.id, algorithm, suffix_bytes, expected_kid)
        self.cost = sum(map(len, inputs)) + ITEM_OVERHEAD * len(inputs)
        self.group_cost = len(held.token) + len(suffix_bytes) + GROUP_OVERHEAD
        self.attempts = 0
        self.queued_at = time.monotonic()
        self.token = held.token
        self.journalled = False
        """Whether its intents are in the journal."""
        self.settled = False
        """Whether an outcome is in the journal for them."""
        self.sent = False
        """Whether it may have reached an adapter. Once true it stays true: from then on silence
        means "unknown".
        """

    @property
    def owed(self) -> bool:
        """Whether the journal waits for its outcome. Who lets go of such a call must have it
        settled as lost.
        """
        return self.journalled and not self.settled

    def fail(self, error: FailureError) -> None:
        """Give all items this result, unless they have one."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Answer:
    """What came back for one call: a result for each item, and what the signatures of the group
    were made under.

    `group` is the adapter's message where it answers this call alone. `all_signed` is known once
    the answer was checked.
    """

    __slots__ = ("all_signed", "group", "items", "signed_by")

    def __init__(
        self,
        signed_by: types_pb2.SignedBy,
        items: Sequence[signing_pb2.SignedItem],
        group: signing_pb2.SignedGroup | None = None,
    ) -> None:
        self.signed_by = signed_by
        self.items = items
        self.group = group
        self.all_signed = False

    def replace(self, at: int, item: signing_pb2.SignedItem) -> None:
        """Put another result in the place of one that cannot be handed on."""
        items = list(self.items)
        items[at] = item
        self.items, self.group = items, None


def _dues(call: Call) -> int:
    """What a call costs in its socket's turn: items, and KiB of input."""
    return len(call.intents) + call.cost // 1024


Lost = Callable[[Call, failures_pb2.Reason.ValueType], None]
"""Writes down that a call's outcome is unknown, and tells its caller; see `sign.outcomes`."""


class Batch:
    """Calls that travel in one message."""

    __slots__ = ("calls", "groups", "items")

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.items = sum(len(call.intents) for call in calls)
        self.groups: dict[tuple[str, int, bytes, str], list[Call]] = {}
        for call in calls:
            self.groups.setdefault(call.key, []).append(call)

    def request(self, batch_id: int) -> signing_pb2.SignRequest:
        """The message. Tokens are read now, so that a handle renewed while a call waited is the one
        that is sent.
        """
        request = signing_pb2.SignRequest(batch_id=batch_id)
        handles: dict[str, int] = {}
        traces: list[str] = []
        for calls in self.groups.values():
            first = calls[0]
            index = handles.get(first.held.id)
            if index is None:
                index = handles[first.held.id] = len(handles)
                # a dropped one is refused upstream, for good
                request.handles.append(first.held.token or first.token)
            group = request.groups.add(
                handle_index=index,
                algorithm=first.algorithm,
                expected_kid=first.expected_kid,
                caller=first.held.socket,
            )
            group.context.CopyFrom(first.suffix)
            add = group.items.add
            for call in calls:
                for intent_id, data in zip(call.intents, call.inputs, strict=True):
                    add(intent_id=intent_id, input=data)
                if call.traceparent:
                    traces.append(call.traceparent)
        if traces:
            request.traceparent, links = gathered(traces)
            request.linked_traceparents.extend(links)
        return request

    def answers(self, response: signing_pb2.SignResponse) -> list[tuple[Call, Answer]]:
        """The response, call by call. Raises ValueError if its shape is not that of the batch."""
        if len(response.groups) != len(self.groups):
            raise ValueError("wrong number of groups")
        answers = []
        for calls, group in zip(self.groups.values(), response.groups, strict=True):
            items = group.items
            if len(items) != sum(len(call.intents) for call in calls):
                raise ValueError("wrong number of items")
            if len(calls) == 1:
                answers.append((calls[0], Answer(group.signed_by, items, group)))
                continue
            at = 0
            for call in calls:
                answers.append((call, Answer(group.signed_by, items[at : at + len(call.intents)])))
                at += len(call.intents)
        return answers


class Taker(Protocol):
    """A stream that takes batches."""

    @property
    def load(self) -> int:
        """How many streams to the same replica have something to do."""

    def wake(self) -> None:
        """There is something to take; called once after `park`."""


class Coalescer:
    """The queue between callers and streams. For one event loop."""

    def __init__(
        self, max_items: int, max_bytes: int, refusing: Callable[[], FailureError | None]
    ) -> None:
        """`refusing` gives the error with which new calls are refused while no adapter can be
        reached, or None.
        """
        self._waiting: FairQueue[Call] = FairQueue(QUANTUM, lambda call: call.held.socket, _dues)
        self._held_by: dict[str, tuple[int, int]] = {}
        """Items and bytes that wait, by socket."""
        self._at_work: dict[Taker, str] = {}
        """Whose batch each stream has; empty: nobody's."""
        self._seen: dict[str, float] = {}
        """When each socket's last call came."""
        self._resting: set[Call] = set()
        self._closed: FailureError | None = None
        self._parked: list[Taker] = []
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._refusing = refusing
        self.items = 0
        self.bytes = 0

    def age(self) -> float:
        """How long the oldest call has waited, seconds. Read from the telemetry thread."""
        try:
            return time.monotonic() - min(call.queued_at for call in self._waiting.firsts())
        except (IndexError, ValueError, RuntimeError):  # it is empty, or changed under our eyes
            return 0.0

    @property
    def crowded(self) -> bool:
        """Whether more than one socket has had calls lately. Then nobody's calls are in large
        pieces, nor are batches.
        """
        if len(self._seen) < 2:
            return False
        lately = time.monotonic() - CROWDED_S
        return sum(when > lately for when in self._seen.values()) > 1

    @property
    def piece_items(self) -> int:
        """Most items of a call now."""
        return CROWDED_ITEMS if self.crowded else MAX_BATCH_ITEMS

    def submit(self, call: Call) -> None:
        """Queue a call. Raises FailureError OVERLOADED, UPSTREAM_UNREACHABLE or that of `fail_all`;
        then it is not queued.
        """
        socket = call.held.socket
        self._seen[socket] = call.queued_at
        # nobody has more than half of the queue while others sign too
        parts = 2 if self.crowded else 1
        own_items, own_bytes = self._held_by.get(socket, (0, 0))
        full = (
            self.items + len(call.intents) > self._max_items
            or self.bytes + call.cost > self._max_bytes
        )
        if full or (
            own_items
            and (own_items * parts > self._max_items or own_bytes * parts > self._max_bytes)
        ):
            raise FailureError(
                failures_pb2.REASON_OVERLOADED, "The agent's queue is full.", retry_after_ms=50
            )
        refusal = self._closed or self._refusing()
        if refusal is not None:
            raise refusal
        self._waiting.append(call)
        self._count(call, 1)
        self._wake_one()

    @property
    def closed(self) -> bool:
        """Whether `fail_all` was called: nothing is sent any more."""
        return self._closed is not None

    def rest(self, calls: list[Call]) -> None:
        """Keep calls whose answer was lost until `again` puts them back. Not once it is closed."""
        self._resting.update(calls)

    def again(self, calls: list[Call]) -> None:
        """Put those of them that still rest back in front. They are inside the bound already: they
        were counted before.
        """
        for call in reversed(calls):
            if call not in self._resting:
                continue
            self._resting.remove(call)
            self._waiting.append_first(call)
            self._count(call, 1)
        self._wake_one()

    def withdraw(self, call: Call) -> bool:
        """Its caller has given up: take it out if it still waits. False if it does not."""
        if call in self._resting:
            self._resting.remove(call)
            return True
        if self._waiting.remove(call):
            self._count(call, -1)
            return True
        return False

    def _wake_one(self) -> None:
        """An idle stream, of the replica with the least to do; of several the one that was busy
        last, whose caches are warm.
        """
        if self._parked:
            taker = min(reversed(self._parked), key=lambda one: one.load)
            self._parked.remove(taker)
            taker.wake()

    def park(self, taker: Taker) -> None:
        """This stream is idle."""
        self._parked.append(taker)

    def unpark(self, taker: Taker) -> None:
        """This stream is idle no more, or gone."""
        if taker in self._parked:
            self._parked.remove(taker)

    def take(self, lost: Lost, taker: Taker | None = None) -> Batch | None:
        """The next batch, oldest calls first; None if nothing waits. What is left out because
        nobody waits for it is settled.

        While several sockets sign, a batch is of one socket, whose turn it is, and no socket has
        all streams: who asks for one signature waits neither for the many of another nor for a
        stream.
        """
        if taker is not None:
            self._at_work[taker] = ""
        crowded = self.crowded
        most = CROWDED_ITEMS if crowded else MAX_BATCH_ITEMS
        skip: set[object] = self._with_enough_streams() if crowded else set()
        calls: list[Call] = []
        items = size = 0
        groups: set[object] = set()
        while (call := self._waiting.peek(skip)) is not None:
            cost = call.cost + (0 if call.key in groups else call.group_cost)
            over = items + len(call.intents) > most or size + cost > BATCH_BYTES
            if calls and (over or (len(groups) == MAX_GROUPS and call.key not in groups)):
                break
            self._waiting.pop()
            self._count(call, -1)
            if call.answer.done():
                if call.owed:
                    lost(call, failures_pb2.REASON_ANSWER_LOST)
                continue
            calls.append(call)
            groups.add(call.key)
            items += len(call.intents)
            size += cost
            if crowded:
                skip = {owner for owner in self._waiting.owners if owner != call.held.socket}
        if not calls:
            return None
        if taker is not None:
            self._at_work[taker] = calls[0].held.socket
        return Batch(calls)

    def _with_enough_streams(self) -> set[object]:
        """Sockets that have half of the streams, or the only one."""
        most = max(1, len(self._at_work) // 2)
        if len(self._at_work) < 2:
            return set()
        owners = [owner for owner in self._at_work.values() if owner]
        return {owner for owner in owners if owners.count(owner) >= most}

    def gone(self, taker: Taker) -> None:
        """This stream has ended: another may take what it was to take."""
        self._at_work.pop(taker, None)
        if self._waiting:
            self._wake_one()

    def fail_all(self, error: FailureError, lost: Lost) -> None:
        """Close: refuse everything that waits or comes later. What may have been signed is not
        refused but unknown.
        """
        self._closed = error
        left = [*self._waiting, *self._resting]
        self._waiting.clear()
        self._resting.clear()
        self.items = self.bytes = 0
        self._held_by.clear()
        for call in left:
            if call.journalled:
                lost(call, failures_pb2.REASON_ANSWER_LOST)
            else:
                call.fail(error)

    def _count(self, call: Call, sign: int) -> None:
        items, size = self._held_by.get(call.held.socket, (0, 0))
        self._held_by[call.held.socket] = (
            items + sign * len(call.intents),
            size + sign * call.cost,
        )
        self.items += sign * len(call.intents)
        self.bytes += sign * call.cost
