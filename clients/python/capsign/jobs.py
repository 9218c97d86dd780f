"""What the batch scheduler works with: items, jobs, messages in flight, and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from capsign_wire.failures import FailureError

from capsign.handles import Template
from capsign.translate import Made, SignerClosedError

ITEM_OVERHEAD = 40
"""Bytes an item adds to its input: intent id, tags and lengths, rounded up."""


class Item(NamedTuple):
    """One input to sign. `digest` says whether `data` is a digest or a message."""

    intent_id: bytes
    data: bytes
    digest: bool


class Answer(NamedTuple):
    """The result of a job: `items` in the job's order, or one `failure` for all of them."""

    items: Sequence[Any] = ()
    signed_by: Sequence[Made] = ()
    """The keys that signed; each signature names one by its index."""
    failure: FailureError | None = None


class Job:
    """Items that one caller wants signed under one template; at most MAX_BATCH_ITEMS and MAX_BYTES.

    `sent`: it may have reached the agent. `lost`: an answer to it was lost, so that a later refusal
    does not prove that nothing was signed. `waiter` belongs to the stream.
    """

    __slots__ = (
        "alone",
        "deadline",
        "items",
        "lost",
        "message",
        "sent",
        "settled",
        "size",
        "template",
        "trace",
        "waiter",
    )

    def __init__(
        self,
        template: Template,
        items: Sequence[Item],
        deadline: float,
        *,
        trace: str = "",
        lost: bool = False,
    ) -> None:
        self.template = template
        self.items = items
        self.deadline = deadline
        self.trace = trace
        self.lost = lost
        self.size = ITEM_OVERHEAD * len(items)
        for item in items:
            self.size += len(item.data)
        self.sent = lost
        self.alone = False
        self.settled = False
        self.message: Message | None = None
        self.waiter: Any = None


class Message:
    """A message in flight. `places` says where each job's items are: (job, index of the group,
    index of its first item).
    """

    __slots__ = ("call_id", "open", "places", "sent_at", "sizes")

    def __init__(self, call_id: int, sent_at: float) -> None:
        self.call_id = call_id
        self.sent_at = sent_at
        self.places: list[tuple[Job, int, int]] = []
        self.sizes: list[int] = []
        self.open = 0


def closed_answer(job: Job) -> Answer:
    """The answer of a job whose signer was closed."""
    return Answer(failure=SignerClosedError(sent=job.sent or job.lost))
