"""6. Sign: one signature by each key, for each item whose input and intent id are valid."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.failures import FailureError
from capsign_wire.intents import is_intent_id
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.lifecycle import IntentEvent
from capsign_adapter.sign import open_calls
from capsign_adapter.sign.batch import Batch, Item
from capsign_adapter.sign.intent_time import intent_in_time, latest_intent
from capsign_adapter.sign.refuse import Refusals
from capsign_adapter.sign.scope import Signable
from capsign_adapter.sign.signing_threads import Signing
from capsign_adapter.store.stored_result import of_signatures, place_of


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
        for item, *results in zip(good, *by_key, strict=True):
            signatures: list[bytes] = []
            for result in results:
                if isinstance(result, FailureError):
                    self._refusals.one(batch, signable, item, result)
                    break
                signatures.append(result)
            else:
                self._signed(batch, signable, item, signatures)

    def _signed(
        self, batch: Batch, signable: Signable, item: Item, signatures: list[bytes]
    ) -> None:
        item.signatures = signatures
        hashes = [sha256(signature).digest() for signature in signatures]
        facts = (batch.now_ms, item.asked.intent_id, item.fingerprint)
        if signable.second is None:
            leaf = signable.leaf.signed(*facts, hashes[0])
        else:
            leaf = signable.leaf.signed_twice(*facts, hashes, signable.second)
        seal, intent_id = signable.results.seal, item.asked.intent_id
        stored = [
            (key.stored, seal(signature, place_of(intent_id, number)))
            for number, (key, signature) in enumerate(zip(signable.keys, signatures, strict=True))
        ]
        batch.draft(item, signable, IntentEvent.SIGN, of_signatures(stored), leaf)

    def _good(
        self, batch: Batch, signable: Signable, items: Sequence[Item]
    ) -> tuple[list[Item], list[bytes]]:
        """Returns the items that can be signed, and their inputs. Refuses the others."""
        good: list[Item] = []
        inputs: list[bytes] = []
        row, is_open = signable.keys[0].row, signable.is_open
        shortest, longest = _lengths(row, batch.snapshot.policy.limits.message_max)
        latest, fingerprint_of = latest_intent(batch.now_ms), signable.fingerprint_of
        is_plain = not is_open and not signable.keys[-1].takes_second
        for item in items:
            intent_id, data = item.asked.intent_id, item.asked.input
            if intent_id > latest or not is_intent_id(intent_id):
                try:
                    intent_in_time(intent_id, batch.now_ms)
                except FailureError as error:
                    self._refusals.unattributed(batch, item, error)
                    continue
            item.fingerprint = fingerprint_of(item.asked)
            if not shortest <= len(data) <= longest:
                self._refusals.one(batch, signable, item, _misfit(row, longest))
                continue
            if not is_plain:
                try:
                    open_calls.check_item(item.asked, signable.keys, is_open=is_open)
                except FailureError as error:
                    self._refusals.one(batch, signable, item, error)
                    continue
            good.append(item)
            inputs.append(data)
        return good, inputs


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
    return FailureError(failures_pb2.REASON_INPUT_TOO_LARGE, detail, field="input")
