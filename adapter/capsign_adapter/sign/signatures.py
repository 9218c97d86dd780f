"""6. Sign: one signature by each key, for each item whose input and intent id are valid."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from capsign_wire.advice import Given
from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.failures import FailureError
from capsign_wire.intents import are_intent_ids
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.lifecycle import IntentEvent
from capsign_adapter.sign import open_calls
from capsign_adapter.sign.batch import Batch, Item
from capsign_adapter.sign.intent_time import intent_in_time, latest_intent
from capsign_adapter.sign.refuse import Refusals
from capsign_adapter.sign.scope import Signable
from capsign_adapter.sign.signing_threads import Signing
from capsign_adapter.store.stored_result import places_of, results_of


class Signatures:
    """One for a replica; any thread."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._threads = Signing()

    def make(self, batch: Batch, signable: Signable, items: Sequence[Item]) -> None:
        """Sign the items. Those that were signed wait for the commit; the others are refused."""
        good, inputs = self._good(batch, signable, items)
        by_key = [
            self._threads.sign(
                key.signer,
                [item.asked.second_input for item in good] if key.takes_second else inputs,
                batch.token_breaker,
            )
            for key in signable.keys
        ]
        signed: list[Item] = []
        for item, *results in zip(good, *by_key, strict=True):
            failed = [result for result in results if isinstance(result, FailureError)]
            if failed:
                self._refusals.one(batch, signable, item, failed[0])
                continue
            item.signatures = results
            signed.append(item)
        if signed:
            _draft(batch, signable, signed)

    def _good(
        self, batch: Batch, signable: Signable, items: Sequence[Item]
    ) -> tuple[Sequence[Item], list[bytes]]:
        """Returns the items that can be signed, and their inputs. Refuses the others."""
        row, is_open = signable.keys[0].row, signable.is_open
        items = self._timely(batch, items)
        inputs = [item.asked.input for item in items]
        bound = [item.asked.message_sha256 for item in items] if is_open else inputs
        for item, fingerprint in zip(items, signable.fingerprint.of_each(bound), strict=True):
            item.fingerprint = fingerprint
        shortest, longest = _lengths(row, batch.snapshot.policy.limits.message_max)
        lengths = {*map(len, inputs)}
        is_plain = not is_open and not signable.keys[-1].takes_second
        if is_plain and lengths and shortest <= min(lengths) and max(lengths) <= longest:
            return items, inputs
        good: list[Item] = []
        for item, data in zip(items, inputs, strict=True):
            if not shortest <= len(data) <= longest:
                self._refusals.one(batch, signable, item, _misfit(row, longest))
                continue
            try:
                open_calls.check_item(item.asked, signable.keys, is_open=is_open)
            except FailureError as error:
                self._refusals.one(batch, signable, item, error)
                continue
            good.append(item)
        return good, [item.asked.input for item in good]

    def _timely(self, batch: Batch, items: Sequence[Item]) -> Sequence[Item]:
        """Returns the items whose intent ids are valid and not from the future. Refuses the
        others.
        """
        intent_ids = [item.intent_id for item in items]
        if are_intent_ids(intent_ids) and max(intent_ids, default=b"") <= latest_intent(
            batch.now_ms
        ):
            return items
        timely: list[Item] = []
        for item in items:
            try:
                intent_in_time(item.intent_id, batch.now_ms)
            except FailureError as error:
                self._refusals.unattributed(batch, item, error)
                continue
            timely.append(item)
        return timely


def _draft(batch: Batch, signable: Signable, items: Sequence[Item]) -> None:
    """Queue signed items for the commit: the leaf and the sealed signatures of each."""
    intent_ids = [item.intent_id for item in items]
    commitments = [item.fingerprint for item in items]
    by_key = list(zip(*[item.signatures for item in items], strict=True))
    hashes = [[sha256(signature).digest() for signature in column] for column in by_key]
    now_ms, leaf, second = batch.now_ms, signable.leaf, signable.second
    if second is None:
        leaves = leaf.signed_each(now_ms, intent_ids, commitments, hashes[0])
    else:
        leaves = [
            leaf.signed_twice(now_ms, intent_id, commitment, both, second)
            for intent_id, commitment, *both in zip(intent_ids, commitments, *hashes, strict=True)
        ]
    sealed = [
        (key.stored, signable.results.seal_each(column, places_of(intent_ids, number)))
        for number, (key, column) in enumerate(zip(signable.keys, by_key, strict=True))
    ]
    batch.draft(items, signable, IntentEvent.SIGN, results_of(sealed), leaves)


def _lengths(row: AlgorithmRow, message_max: int) -> tuple[int, int]:
    """Returns the shortest and the longest input of this algorithm, bytes."""
    if row.takes_digest:
        return row.max_input, row.max_input
    return 0, min(row.max_input, message_max)


def _misfit(row: AlgorithmRow, longest: int) -> FailureError:
    """Returns the failure of an input whose length the algorithm does not take."""
    if row.takes_digest:
        detail = f"{row.name} takes a digest of {longest} bytes."
        return FailureError(failures_pb2.REASON_INPUT_MALFORMED, detail, field="input")
    detail = f"Messages are at most {longest} bytes here."
    reason = failures_pb2.REASON_INPUT_TOO_LARGE
    return FailureError(reason, detail, field="input", given=Given.MESSAGE)
