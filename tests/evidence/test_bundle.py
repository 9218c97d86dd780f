"""A bundle proves what the log says of a signature; one that was changed proves nothing."""

from __future__ import annotations

import base64
import json

import pytest
from capsign_evidence.bundle import Bundle, verify_bundle
from capsign_evidence.checkpoint import open_checkpoint
from capsign_evidence.note import NoteError
from capsign_evidence.proofs import ProofError
from capsign_evidence.receipt import ReceiptError
from support.bundles import SignedLog, log_key_of


@pytest.fixture(scope="module")
def signed() -> SignedLog:
    return SignedLog()


def verify(data: bytes, key) -> object:
    return verify_bundle(Bundle.parse(data), lambda note: open_checkpoint(note, key))


def test_a_bundle_proves_its_entry(signed):
    proven = verify(signed.data(), signed.verifier_key)
    assert (proven.index, proven.head.size) == (300, 501)
    assert proven.record.group.key == "orders"


def test_another_log_says_nothing_about_it(signed):
    stranger, _ = log_key_of(9)
    with pytest.raises(NoteError, match="no known key"):
        verify(signed.data(), stranger)


def test_a_changed_entry_is_not_the_one_in_the_log(signed):
    entry = bytearray(signed.entry)
    entry[60] ^= 1
    with pytest.raises(ProofError, match="not leaf 300"):
        verify(signed.data(entry=base64.b64encode(entry).decode()), signed.verifier_key)


def test_a_proof_of_an_older_tree_does_not_lead_to_the_newer_root(signed):
    old = signed.receipt()
    grown = SignedLog(after=400)
    _, _, checkpoint = old.partition(b"\n\n")
    mixed = grown.receipt().replace(grown.checkpoint(), checkpoint)
    with pytest.raises(ProofError):
        verify(signed.data(receipt=mixed.decode()), signed.verifier_key)


def test_another_signature_is_not_recorded_by_the_entry(signed):
    [member] = signed.bundle()["signatures"]
    other = member | {"value": base64.b64encode(b"another").decode()}
    with pytest.raises(ReceiptError, match="another signature"):
        verify(signed.data(signatures=[other]), signed.verifier_key)
    with pytest.raises(ReceiptError, match="another signature"):
        verify(signed.data(signatures=[member, other]), signed.verifier_key)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"format": "capsign-bundle@v2"}',
        b'{"format": "capsign-bundle@v1", "signatures": []}',
        b'{"format": "capsign-bundle@v1", "signatures": [{"algorithm": 1}]}',
        b'{"format": "capsign-bundle@v1", "format": "capsign-bundle@v1"}',
        b"[" * 100_000,
        b" " * (1024 * 1024 + 1),
    ],
)
def test_what_is_no_bundle_is_refused(data):
    with pytest.raises(ReceiptError):
        Bundle.parse(data)


def test_base64_has_one_spelling(signed):
    [member] = signed.bundle()["signatures"]
    with pytest.raises(ReceiptError, match="malformed"):
        Bundle.parse(signed.data(signatures=[member | {"value": member["value"] + "\n"}]))


def test_a_member_is_named_once(signed):
    data = signed.data()
    twice = data[:-1] + b', "entry": ' + json.dumps("AAAA").encode() + b"}"
    with pytest.raises(ReceiptError, match="twice"):
        Bundle.parse(twice)
