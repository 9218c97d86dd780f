"""A call on its way upstream, and what comes back for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.handles.scope import HandleScope

ITEM_OVERHEAD = 48
"""Bytes that an item adds to its input on the wire and in memory, rounded up."""

GROUP_OVERHEAD = 256
"""Bytes that a group adds to its handle and context on the wire, rounded up."""


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
        "recorded",
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
    ) -> None:
        """`expected_kid`: the key that the inputs were made for; empty if they fit every key."""
        held = scope.held
        self.held = held
        self.algorithm = scope.algorithm
        self.suffix = scope.suffix
        self.expected_kid = expected_kid
        self.intents = intents
        self.inputs = inputs
        self.answer = answer
        self.traceparent = traceparent
        self.key = (held.id, scope.algorithm, scope.suffix_bytes, expected_kid)
        self.cost = sum(map(len, inputs)) + ITEM_OVERHEAD * len(inputs)
        self.group_cost = len(held.token) + len(scope.suffix_bytes) + GROUP_OVERHEAD
        self.attempts = 0
        self.queued_at = time.monotonic()
        self.token = held.token
        self.journalled = False
        """Whether its intents are in the journal."""
        self.recorded = False
        """Whether an outcome is in the journal for them."""
        self.sent = False
        """Whether it may have reached an adapter. Once true it stays true: from then on silence
        means "unknown".
        """

    @property
    def owed(self) -> bool:
        """Whether the journal waits for its outcome. Who lets go of such a call must have it
        recorded as lost.
        """
        return self.journalled and not self.recorded

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
        signed_by: Sequence[types_pb2.SignedBy],
        items: Sequence[types_pb2.SignedItem],
        group: types_pb2.SignedGroup | None = None,
    ) -> None:
        self.signed_by = signed_by
        self.items = items
        self.group = group
        self.all_signed = False

    def replace(self, at: int, item: types_pb2.SignedItem) -> None:
        """Put another result in the place of one that cannot be handed on."""
        items = list(self.items)
        items[at] = item
        self.items, self.group = items, None


Lost = Callable[[Call, failures_pb2.Reason.ValueType], None]
"""Writes down that a call's outcome is unknown, and tells its caller; see `sign.outcomes`."""
