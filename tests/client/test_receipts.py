"""`Signer.receipt`: typed, repeated while that may help, and a bundle that a verifier takes."""

from __future__ import annotations

import json

import pytest
from capsign import AsyncSigner, Refused, Signer, Unavailable, new_intent_id
from capsign_evidence.bundle import Bundle
from capsign_wire.agent.v1 import agent_pb2 as pb

TEXT = b"c2sp.org/tlog-proof@v1\nindex 12\nAAAA\n\ncheckpoint\n"


def told() -> pb.GetReceiptResponse:
    return pb.GetReceiptResponse(receipt=TEXT, entry=b"entry", verifier_key="log+id+key")


def test_a_receipt_of_a_signature_becomes_a_bundle(agent):
    with Signer(agent.path) as signer:
        signature = signer.sign(b"message", purpose="jwt", algorithm="ES256")
        agent.receipts[signature.intent_id] = told()
        receipt = signer.receipt(signature)
        keys = signer.public_keys(purpose="jwt", algorithm="ES256")
    assert (receipt.leaf_index, receipt.entry, receipt.log_key) == (12, b"entry", "log+id+key")
    assert receipt.signatures == (signature,)
    assert agent.receipts_asked[0].leaf_index == signature.leaf_index
    bundle = Bundle.parse(receipt.bundle(keys))
    assert (bundle.receipt, bundle.entry) == (TEXT, b"entry")
    [bundled] = bundle.signatures
    assert (bundled.value, bundled.kid) == (signature.value, signature.kid)
    named = json.loads(receipt.bundle(keys))["signatures"][0].get("public_key", "")
    assert bundled.public_key == named


def test_a_receipt_of_an_intent_has_no_signature_to_bundle(agent):
    intent = new_intent_id()
    agent.receipts[intent] = told()
    with Signer(agent.path) as signer:
        receipt = signer.receipt(intent, leaf_index=12)
    assert agent.receipts_asked[0].leaf_index == 12
    with pytest.raises(ValueError, match="no signature"):
        receipt.bundle()


def test_an_intent_that_the_log_does_not_have(agent):
    with Signer(agent.path) as signer, pytest.raises(Refused) as refused:
        signer.receipt(new_intent_id())
    assert refused.value.reason == "NOT_IN_LOG"


def test_it_waits_until_witnesses_have_cosigned_and_no_longer_than_it_may(agent):
    intent = new_intent_id()
    agent.receipts[intent] = told()
    agent.unwitnessed = 2
    with Signer(agent.path) as signer:
        assert signer.receipt(intent).leaf_index == 12
        assert len(agent.receipts_asked) == 3
        agent.unwitnessed = 1000
        with pytest.raises(Unavailable) as late:
            signer.receipt(intent, timeout=0.1)
    assert late.value.reason == "NOT_WITNESSED"


async def test_for_asyncio_too(agent):
    intent = new_intent_id()
    agent.receipts[intent] = told()
    async with AsyncSigner(agent.path) as signer:
        assert (await signer.receipt(intent)).leaf_index == 12
        with pytest.raises(ValueError, match="leaf_index"):
            await signer.receipt(intent, leaf_index=-1)
