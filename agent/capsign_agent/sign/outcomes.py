"""Steps 7, 9 and 10 of the signing path (see `sign`): what happens around the exchange of one batch
with an adapter.

The streams call `before_sending` before the first byte, and after it either `answered` once or
`lost` for each call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.algorithms import metric_name
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.handles.held_handle import HeldHandle
from capsign_agent.handles.unavailable import ended_upstream
from capsign_agent.journal import records
from capsign_agent.journal.journal import Journal
from capsign_agent.sign.answer_check import longest_by_key, unsigned
from capsign_agent.sign.told import Told
from capsign_agent.upstream.batch import Batch
from capsign_agent.upstream.call import Answer, Call

_HANDLE_REASONS = frozenset(
    {
        failures_pb2.REASON_HANDLE_EXPIRED,
        failures_pb2.REASON_HANDLE_REVOKED,
        failures_pb2.REASON_HANDLE_FORGED,
        failures_pb2.REASON_HANDLE_STOLEN,
    }
)
"""Refusals that concern the handle and not the call."""

MAX_ELAPSED_MS = 0xFFFF_FFFF
"""What the field of a record takes."""

HandleRefused = Callable[[HeldHandle, failures_pb2.Reason.ValueType], None]


class OutcomeRecorder:
    """For all streams. For one event loop."""

    def __init__(self, journal: Journal, metrics: Metrics, handle_refused: HandleRefused) -> None:
        self._journal = journal
        self._metrics = metrics
        self._handle_refused = handle_refused

    def before_sending(self, batch: Batch) -> Batch:
        """Step 7: journal the intents. Returns the batch without the calls of sockets for which the
        journal has no room; those have failed, and must not be sent.
        """
        fresh = [call for call in batch.calls if not call.journalled]
        refused: set[Call] = set()
        for socket, calls in _by_socket(fresh).items():
            try:
                self._intend(socket, calls)
            except FailureError as error:
                refused.update(calls)
                for call in calls:
                    call.fail(error)
        if refused:
            return Batch([call for call in batch.calls if call not in refused])
        return batch

    def _intend(self, socket: str, calls: Sequence[Call]) -> None:
        """Journal the intents of one socket. Raises FailureError JOURNAL_FULL, JOURNAL_SHARE_FULL;
        then nothing is written.
        """
        told = Told()
        for call in calls:
            told.intents(call)
        count = told.calls
        self._journal.promise(count, socket)
        piece = told.piece(socket)
        try:
            self._journal.append(piece, count, socket)  # 7
        except FailureError:
            self._journal.forget(count * 2, socket)
            raise
        for call in calls:
            call.journalled = True

    def answered(self, batch: Batch, response: signing_pb2.SignResponse) -> None:
        """Steps 9 and 10: check the answer, journal it, then give each call its results."""
        try:
            answers = (
                _whole_failure(batch, response)
                if response.HasField("failure")
                else batch.answers(response)
            )
        except ValueError:
            self._metrics.violated("I5", items=batch.items)  # not one outcome for each intent
            for call in batch.calls:
                self.lost(call, failures_pb2.REASON_INTERNAL)
            return
        self._check(answers)  # 9
        by_call = dict(answers)
        for socket, calls in _by_socket(by_call).items():
            self._conclude(socket, [(call, by_call[call]) for call in calls])

    def _conclude(self, socket: str, answers: Sequence[tuple[Call, Answer]]) -> None:
        """Step 10 for the calls of one socket: journal what came of them, then tell it."""
        told = Told()
        promised, now = 0, time.monotonic()
        for call, answer in answers:
            _outcomes(told, call, answer, now)
            if not call.recorded:
                promised += len(call.intents)
                call.recorded = True
        if not self.append(told.piece(socket), promised, socket):  # 10
            # Nobody may have a signature whose outcome is not written down. The adapter has it:
            # resolving gives it later.
            error = FailureError(
                failures_pb2.REASON_ANSWER_LOST, "The agent's audit journal failed."
            )
            for call, _ in answers:
                call.fail(error)
            return
        for call, answer in answers:
            if not answer.all_signed:
                self._react(call.held, answer)
            if not call.answer.done():
                call.answer.set_result(answer)

    def lost(self, call: Call, reason: failures_pb2.Reason.ValueType) -> None:
        """No answer will come, or it would come too late: journal the outcome as unknown, and fail
        the call.
        """
        error = FailureError(reason)
        if not call.recorded:
            call.recorded = True
            held = call.held
            piece = records.Piece()
            records.failed(
                piece, call.intents, held.grant, call.algorithm, held.socket, error.outcome, reason
            )
            self.append(piece, len(call.intents), held.socket)  # 10
        call.fail(error)

    def _check(self, answers: Iterable[tuple[Call, Answer]]) -> None:
        """Step 9: replace every item that breaks the adapter's promises by INTERNAL, which means
        unknown. Notes whether all items are signed.
        """
        key: object = None
        longest: Sequence[int] = ()
        asked: Sequence[bool] = ()
        for call, answer in answers:
            if call.key != key:  # calls of one group have the same signers
                key = call.key
                longest = longest_by_key(answer.signed_by)
                allowed = {call.algorithm} if call.algorithm else call.held.rule.algorithms
                asked = [each.algorithm in allowed for each in answer.signed_by]
            bad = unsigned(answer.items, longest, asked)
            answer.all_signed = not bad
            for at in bad:
                instead = self._instead(call, answer.items[at])
                if instead is not None:
                    answer.replace(at, types_pb2.SignedItem(failure=instead.to_item()))

    def _instead(self, call: Call, item: types_pb2.SignedItem) -> FailureError | None:
        """The failure that the caller hears in place of an item's own result; None if the result is
        passed on.
        """
        name = metric_name(call.algorithm)
        if item.signatures:
            # No key or custody named, or not a signature of this algorithm.
            self._metrics.violated("I10", algorithm=name)
            return FailureError(failures_pb2.REASON_INTERNAL)
        if not item.HasField("failure"):
            self._metrics.violated("I5", algorithm=name)
            return FailureError(failures_pb2.REASON_INTERNAL)
        if (
            call.attempts <= 1
            and item.failure.reason == failures_pb2.REASON_HANDLE_EXPIRED
            and not item.leaf_index
        ):
            # By the adapter's clock it had ended; nothing is bound to the intent (decision 8),
            # which is good under the next one.
            self._handle_refused(call.held, item.failure.reason)
            return ended_upstream(FailureError.from_item(item.failure))
        if call.attempts > 1 and item.failure.reason != failures_pb2.REASON_INTENT_NEVER:
            # The first copy may have been done although this one was not: only the ledger's "never"
            # is certain.
            return FailureError(failures_pb2.REASON_ANSWER_LOST)
        return None

    def _react(self, held: HeldHandle, answer: Answer) -> None:
        for item in answer.items:
            if not item.signatures and item.failure.reason in _HANDLE_REASONS:
                self._handle_refused(held, item.failure.reason)
                return

    def append(self, piece: records.Piece, promised: int, socket: str) -> bool:
        """Write records of a socket; returns False if the journal cannot take them."""
        try:
            self._journal.append(piece, promised, socket)
        except FailureError:
            self._journal.forget(promised, socket)
            return False
        return True


def _by_socket(calls: Iterable[Call]) -> dict[str, list[Call]]:
    """Calls by the name of their socket, in order."""
    found: dict[str, list[Call]] = {}
    for call in calls:
        socket = call.held.socket
        if socket in found:
            found[socket].append(call)
        else:
            found[socket] = [call]
    return found


def _whole_failure(batch: Batch, response: signing_pb2.SignResponse) -> list[tuple[Call, Answer]]:
    """The answers of a batch that failed as a whole: every item has its reason."""
    failure = FailureError.from_item(response.failure).to_item()
    item = types_pb2.SignedItem(failure=failure)
    return [(call, Answer((), [item] * len(call.intents))) for call in batch.calls]


def _outcomes(told: Told, call: Call, answer: Answer, now: float) -> None:
    """What came of a call; `now` is monotonic."""
    elapsed_ms = int((now - call.queued_at) * 1000) or 1
    elapsed_ms = min(elapsed_ms, MAX_ELAPSED_MS)
    items = answer.items
    if answer.all_signed and len(items) == 1:
        told.one_done(call, call.intents[0], items[0].leaf_index, elapsed_ms)
        return
    if answer.all_signed:
        told.done(call, [item.leaf_index for item in items], elapsed_ms)
        return
    for intent_id, item in zip(call.intents, items, strict=True):
        if item.signatures:
            told.one_done(call, intent_id, item.leaf_index, elapsed_ms)
        else:
            error = FailureError.from_item(item.failure)
            told.failed(call, intent_id, error.outcome, error.reason)
