"""I8: every signature has exactly one leaf, checkpoints are consistent, and what agents report is
what the adapter recorded.

The two records are held against each other here; an adapter that signs without a leaf is seen to
break it.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import capsign
import pytest
from capsign_adapter.store.open import open_store
from capsign_evidence import told_calls
from capsign_evidence.leaf_reader import AgentBatch, Signed
from capsign_evidence.proofs import TreeReader, verify_consistency
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.types.v1 import failures_pb2
from support.dev import Dev

SIGNATURES = 300


def sign_some(dev: Dev) -> list[capsign.Signature]:
    with capsign.Signer(dev.socket()) as signer:
        with pytest.raises(capsign.Refused):
            signer.sign(b"m", purpose="jwt", protocol="jwt", role="thief", algorithm="ES256")
        made = []
        for algorithm in ("Ed25519", "ES256", "HS256"):
            made += signer.sign_many(
                [b"%d" % n for n in range(SIGNATURES // 3)],
                purpose="jwt",
                protocol="jwt",
                algorithm=algorithm,
            )
        signed = [one for one in made if isinstance(one, capsign.Signature)]
        assert signed == made
        return signed


class Records:
    """What the store holds of both streams, read after everybody has ended."""

    def __init__(self, dev: Dev) -> None:
        store = open_store(dev.about["store"])
        try:
            self.batches = [batch for _, _, batch in store.audit_batches(limit=100_000)]
            size = store.control().tree_size
            self.hashes = store.hashes(0, 0, size)
            self.roots = [
                (part, TreeReader(store.hashes, part).root())
                for part in (1, size // 3, size // 2, size)
            ]
            self.proofs = [
                TreeReader(store.hashes, new).consistency(old)
                for (old, _), (new, _) in zip(self.roots, self.roots[1:], strict=False)
            ]
        finally:
            store.close()
        self.entries = dev.entries()
        self.signed = {
            index: entry for index, entry in enumerate(self.entries) if isinstance(entry, Signed)
        }
        self.agent = [
            record
            for batch in self.batches
            for record in evidence_pb2.AuditBatch.FromString(batch).records
        ]
        self.reported = {
            intent_id: named - 1
            for record in self.agent
            if record.kind == evidence_pb2.AUDIT_KIND_OUTCOME
            and record.outcome == failures_pb2.OUTCOME_DONE
            for intent_id, named in told_calls.each(record)
        }

    def disagreements(self) -> list[str]:
        """Signed and not reported, reported and not signed, or two leaves for one intent."""
        found = [
            f"reported, no leaf: {intent.hex()}"
            for intent, leaf in self.reported.items()
            if leaf not in self.signed
        ]
        for index, entry in self.signed.items():
            if self.reported.get(entry.intent_id) != index:
                found.append(f"leaf {index} is not what the agent reported")
        twice = [
            intent
            for intent, count in Counter(entry.intent_id for entry in self.signed.values()).items()
            if count > 1
        ]
        return found + [f"two leaves: {intent.hex()}" for intent in twice]


def test_i8_both_records_agree_on_every_signature(dev):
    made = sign_some(dev)
    dev.end(dev.agent)
    records = Records(dev)
    assert records.disagreements() == []
    assert len(records.signed) == SIGNATURES
    for signature in made:
        assert (
            records.signed[signature.leaf_index].signature_hash
            == hashlib.sha256(signature.value).digest()
        )
        assert records.reported[signature.intent_id] == signature.leaf_index
    for ((old, old_root), (new, new_root)), proof in zip(
        zip(records.roots, records.roots[1:], strict=False), records.proofs, strict=True
    ):
        verify_consistency(old, old_root, new, new_root, proof)


def test_i8_an_agents_stream_is_a_chain_from_open_to_close_and_each_batch_is_a_leaf(dev):
    sign_some(dev)
    dev.end(dev.agent)
    records = Records(dev)
    assert [record.sequence for record in records.agent] == list(range(1, len(records.agent) + 1))
    assert records.agent[0].kind == evidence_pb2.AUDIT_KIND_OPEN
    assert records.agent[-1].kind == evidence_pb2.AUDIT_KIND_CLOSE
    previous = b""
    for batch in records.batches:
        assert evidence_pb2.AuditBatch.FromString(batch).previous == previous
        previous = hashlib.sha256(batch).digest()
    leaves = [entry for entry in records.entries if isinstance(entry, AgentBatch)]
    assert [leaf.batch_hash for leaf in leaves] == [
        hashlib.sha256(batch).digest() for batch in records.batches
    ]
    assert [leaf.closes for leaf in leaves] == [False] * (len(leaves) - 1) + [True]


def test_i8_an_adapter_that_signs_without_a_leaf_is_seen(dev):
    dev.replace_adapter(module="support.leafless_adapter")
    sign_some(dev)
    dev.end(dev.agent)
    assert any("no leaf" in words or "not what" in words for words in Records(dev).disagreements())
