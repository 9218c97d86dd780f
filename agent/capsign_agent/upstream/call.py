"""A call on its way to an adapter, and its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.handles.scope import HandleScope

ITEM_OVERHEAD = 48
"""Bytes that an item adds to its input on the wire and in memory, rounded up."""

GROUP_OVERHEAD = 256
"""Bytes that a group adds to its handle and context on the wire, rounded up."""


class SecondInputs(NamedTuple):
    """What a call has beside its inputs, where two keys sign or the algorithm is open."""

    kid: str = ""
    """Of the second key."""
    inputs: Sequence[bytes] = ()
    """For the second key; empty if it takes those of the first."""
    digests: Sequence[bytes] = ()
    """SHA-256 of each message, where the algorithm is open."""


NO_SECOND = SecondInputs()
"""A call by one key, of a named algorithm."""


class Call:
    """Items that are sent together, under one handle, algorithm and context; at most
    MAX_BATCH_ITEMS and BATCH_BYTES.

    `answer` gets the items' results, or a FailureError for all of them. It is set once. A call
    whose caller has given up stays in its batch, so that its outcome is still recorded.
    """

    __slots__ = (
        "algorithm",
        "answer",
        "attempts",
        "cost",
        "digests",
        "expected_kid",
        "group_cost",
        "held",
        "inputs",
        "intents",
        "journalled",
        "key",
        "queued_at",
        "recorded",
        "second_kid",
        "seconds",
        "sent",
        "suffix",
        "token",
        "traceparent",
    )

    def __init__(
        self,
        scope: HandleScope,
        expected_kid: str,
        intents: Sequence[bytes],
        inputs: Sequence[bytes],
        answer: asyncio.Future[Answer],
        traceparent: str = "",
        second: SecondInputs = NO_SECOND,
    ) -> None:
        """`expected_kid`: the id of the key for which the inputs were made; empty if they fit every
        key.
        """
        held = scope.held
        self.held = held
        self.algorithm = scope.algorithm
        self.suffix = scope.suffix
        self.expected_kid = expected_kid
        self.intents = intents
        self.inputs = inputs
        self.answer = answer
        self.traceparent = traceparent
        self.second_kid, self.seconds, self.digests = second
        self.key = (held.id, scope.algorithm, scope.suffix_bytes, expected_kid + self.second_kid)
        self.cost = len(inputs[0]) if len(inputs) == 1 else sum(map(len, inputs))
        self.cost += ITEM_OVERHEAD * len(inputs)
        if second is not NO_SECOND:
            self.cost += sum(map(len, self.seconds)) + 2 * ITEM_OVERHEAD * len(inputs)
        self.group_cost = len(held.token) + len(scope.suffix_bytes) + GROUP_OVERHEAD
        self.attempts = 0
        self.queued_at = time.monotonic()
        self.token = held.token
        self.journalled = False
        """Whether its intents are in the journal."""
        self.recorded = False
        """Whether an outcome of them is in the journal."""
        self.sent = False
        """Whether it may have reached an adapter. It never becomes false again: without an answer
        the outcome is then unknown.
        """

    @property
    def owed(self) -> bool:
        """Whether its intents are in the journal and no outcome is. Such a call must be recorded as
        lost before it is dropped.
        """
        return self.journalled and not self.recorded

    def fail(self, error: FailureError) -> None:
        """Fail all items with this error, unless they have a result."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Answer:
    """The answer to one call: a result for each item, and the keys that signed.

    `group` is the adapter's message if it answers this call alone. `all_signed` is set once the
    answer was checked.
    """

    __slots__ = ("all_signed", "group", "items", "signed_by")

    def __init__(
        self,
        signed_by: Sequence[types_pb2.SignedBy],
        items: Sequence[types_pb2.SignedItem],
        group: types_pb2.SignedGroup | None = None,
    ) -> None:
        self.signed_by = signed_by
        self.items = items
        self.group = group
        self.all_signed = False

    def replace(self, at: int, item: types_pb2.SignedItem) -> None:
        """Replace the result of one item."""
        items = list(self.items)
        items[at] = item
        self.items, self.group = items, None


Lost = Callable[[Call, failures_pb2.Reason.ValueType], None]
"""Records that the outcome of a call is unknown, and fails the call; see `sign.outcomes`."""
