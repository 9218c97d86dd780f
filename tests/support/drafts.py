"""Drafts and audit batches for tests of the store."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

from capsign_adapter.model.evidence import AuditDraft
from capsign_adapter.model.intents import Draft
from capsign_adapter.model.lifecycle import IntentEvent
from capsign_adapter.store.interfaces.whole import Store
from capsign_evidence import leaf
from capsign_evidence.merkle import Frontier, leaf_hash
from capsign_wire.intents import new_intent_id

APP = "spiffe://capsign.test/ns/shop/app"
OTHER_APP = "spiffe://capsign.test/ns/shop/other"
NOW = 1_790_000_000_000


def draft(intent_id: bytes | None = None, **changes) -> Draft:
    """A draft of a signature by APP under grant "orders"; its leaves name the intent, so tests can
    tell them apart.
    """
    intent_id = intent_id or new_intent_id(NOW)
    fields = {
        "workload": APP,
        "intent_id": intent_id,
        "fingerprint": hashlib.sha256(intent_id).digest(),
        "grant": "orders",
        "event": IntentEvent.SIGN,
        "result": b"signature of " + intent_id,
        "leaf": b"leaf of " + intent_id,
        "refusal_leaf": lambda reason: b"refusal %d of " % reason + intent_id,
    }
    return Draft(**(fields | changes))


def audit(
    previous: AuditDraft | None = None, *, records: int = 3, closes: bool = False, **changes
) -> AuditDraft:
    """The batch that follows `previous`; the first of a new boot if there is none."""
    first = previous.last_sequence + 1 if previous else 1
    batch = os.urandom(40)
    fields = {
        "workload": APP,
        "boot_id": previous.boot_id if previous else os.urandom(16),
        "previous": previous.batch_hash if previous else b"",
        "first_sequence": first,
        "last_sequence": first + records - 1,
        "closes": closes,
        "batch": batch,
        "batch_hash": hashlib.sha256(batch).digest(),
        "leaf": b"audit " + batch,
    }
    return AuditDraft(**(fields | changes))


def logged(drafted: AuditDraft) -> AuditDraft:
    """The same with the entry that the adapter makes of it, which says whose it is."""
    entry = leaf.agent_batch(
        NOW,
        bytes(32),
        drafted.workload,
        drafted.boot_id,
        drafted.first_sequence,
        drafted.last_sequence,
        drafted.batch_hash,
        closes=drafted.closes,
    )
    return replace(drafted, leaf=entry)


def check_log(store: Store) -> list[bytes]:
    """Every entry of the log, after checking that it is dense and that hashes and tiles are those
    of its entries.
    """
    size = store.control().tree_size
    entries = store.entries(0, size + 1)
    assert len(entries) == size
    hashes = store.hashes(0, 0, size + 1)
    assert hashes == [leaf_hash(entry) for entry in entries]
    for level in (1, 2):
        width = 256**level
        expected = [
            Frontier().append(hashes[at : at + width])[0].root()
            for at in range(0, size - width + 1, width)
        ]
        assert store.hashes(level, 0, size) == expected
    return entries
