"""How far a call that signs has come: a result for each item, and what is to be sent again. Without
I/O; see `call.signing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons

from capsign.errors import CapsignError
from capsign.handle_selector import HandleSelector
from capsign.handles import Template
from capsign.inputs import split
from capsign.jobs import Answer, Item, Job
from capsign.results import Signature
from capsign.translate import (
    AgentAwayError,
    SignerClosedError,
    after_loss,
    exception,
    instead,
    signature,
)

Outcome: TypeAlias = Signature | CapsignError


class SigningProgress:
    """The items of one call, over all its attempts."""

    def __init__(self, items: Sequence[Item], selector: HandleSelector) -> None:
        self._items = items
        self._selector = selector
        self._results: list[Any] = [None] * len(items)
        self._failures: dict[int, FailureError] = {}
        """The failures of the last attempt that may be repeated, by index of the item."""
        self._unknown_ids = {selector.handle}
        """Handle ids that were refused as unknown, and are not looked up once more. An id that the
        caller gave is never replaced by another.
        """
        self.parts: list[tuple[list[int], bool]] = [(list(part), False) for part in split(items)]
        """What is still to be sent: indices of items, and whether an answer to them was lost."""
        self.handle_unknown = False
        """Whether the agent did not know the handle of the last attempt: the list is out of
        date.
        """
        self.advised_ms = 0
        """The longest wait that the failures of the last attempt advise."""

    @property
    def results(self) -> list[Outcome]:
        """One outcome for each item, in order, once `parts` is empty or `give_up` was called."""
        return self._results

    def jobs(self, template: Template, deadline: float, trace: str) -> list[Job]:
        """The parts that are still to be sent, as jobs under this template."""
        return [
            Job(template, [self._items[at] for at in part], deadline, trace=trace, lost=lost)
            for part, lost in self.parts
        ]

    def take(self, jobs: Sequence[Job], answers: Sequence[Answer], handle_id: str) -> None:
        """Read the answers to the jobs, which were sent under this handle. What may go better when
        it is repeated is in `parts` afterwards; everything else has its result.
        """
        self._failures, self.handle_unknown, self.advised_ms = {}, False, 0
        again: list[tuple[list[int], bool]] = []
        for (part, _), job, answer in zip(self.parts, jobs, answers, strict=True):
            repeat = [
                at
                for at, failure in self._read(answer, part)
                if self._is_repeated(at, failure, job, handle_id)
            ]
            if repeat:
                again.append((repeat, job.lost))
        self.parts = again
        if self.handle_unknown:
            self._unknown_ids.add(handle_id)

    def give_up(self, error: Exception) -> None:
        """Nothing more is sent, because of `error`: each item that is left gets its last failure as
        its result.
        """
        for part, lost in self.parts:
            for at in part:
                failure = self._failures[at]
                if failure.reason == reasons.REASON_HANDLE_UNKNOWN and isinstance(
                    error, CapsignError
                ):
                    # Refused under an id that no longer counts, and it could not be learnt whether
                    # another one does.
                    self._results[at] = instead(
                        error,
                        lost=lost,
                        intent_id=self._items[at].intent_id,
                        selector=self._selector,
                    )
                else:
                    self._results[at] = self._error(at, failure, lost)

    def _is_repeated(self, at: int, failure: FailureError, job: Job, handle_id: str) -> bool:
        """Whether an item is sent again after this failure. If not, it has its result now."""
        unknown = failure.reason == reasons.REASON_HANDLE_UNKNOWN
        if unknown and handle_id not in self._unknown_ids:
            self.handle_unknown = True
        elif not worth_repeating(failure, lost=job.lost):
            self._results[at] = self._error(at, failure, job.lost)
            return False
        self.advised_ms = max(self.advised_ms, failure.retry_after_ms)
        self._failures[at] = failure
        return True

    def _read(self, answer: Answer, part: Sequence[int]) -> list[tuple[int, FailureError]]:
        """Take the signatures of an answer as results; returns the failures, by index."""
        if answer.failure is not None:
            return [(at, answer.failure) for at in part]
        failed = []
        for at, item in zip(part, answer.items, strict=True):
            intent_id = self._items[at].intent_id
            signed = signature(item, answer.signed_by, intent_id, self._selector.algorithm)
            if signed is not None:
                self._results[at] = signed
            elif item.HasField("failure"):
                failed.append((at, FailureError.from_item(item.failure)))
            else:
                text = "The agent answered with neither a signature nor a failure."
                failed.append((at, FailureError(reasons.REASON_INTERNAL, text)))
        return failed

    def _error(self, at: int, failure: FailureError, lost: bool) -> CapsignError:
        return exception(
            after_loss(failure) if lost else failure,
            intent_id=self._items[at].intent_id,
            selector=self._selector,
        )


def sole_signature(answer: Answer, item: Item, selector: HandleSelector) -> Signature | None:
    """The signature of an answer to one item; None if it has another result."""
    if answer.failure is not None or len(answer.items) != 1:
        return None
    return signature(answer.items[0], answer.signed_by, item.intent_id, selector.algorithm)


def worth_repeating(failure: FailureError, *, lost: bool = False) -> bool:
    """Whether the same call may succeed when it is repeated. `lost`: an answer to it was lost
    before; then a lost answer may be asked for again, because an intent that is sent twice is
    signed once.
    """
    if isinstance(failure, SignerClosedError) or (
        isinstance(failure, AgentAwayError) and failure.lasting
    ):
        return False
    return failure.outcome == reasons.OUTCOME_UNAVAILABLE or (
        lost and failure.reason == reasons.REASON_ANSWER_LOST
    )
