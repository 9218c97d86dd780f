"""C2SP tlog-proof: a receipt verifies offline, and nothing like it does."""

import hashlib

import pytest
from capsign_evidence.checkpoint import sign_checkpoint
from capsign_evidence.leaf_reader import Signed, SignedTwice
from capsign_evidence.note import NoteError, VerifierKey
from capsign_evidence.proofs import ProofError, TreeReader
from capsign_evidence.receipt import (
    Receipt,
    ReceiptError,
    make_receipt,
    verify_receipt,
    verify_receipt_of_all,
    verify_signature_receipt,
)
from capsign_evidence.signing_leaf import SecondKey, SigningLeaf
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from support.log_model import MemoryLog

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey("log.capsign.test/main", PRIVATE.public_key().public_bytes_raw())
SIGNATURE = b"signature bytes"
GROUP = SigningLeaf(
    workload="spiffe://capsign.test/app",
    cert_key_hash=bytes(32),
    tenant="shop",
    key="orders",
    key_version=1,
    purpose="jwt",
    algorithm=1,
    custody=1,
    context_digest=bytes(32),
    policy_digest=bytes(32),
    grant="orders",
    handle_serial=bytes(16),
).prepare()
ENTRY = GROUP.signed(1_700_000_000_000, bytes(16), bytes(32), hashlib.sha256(SIGNATURE).digest())
REFUSAL = GROUP.refused(1_700_000_000_000, bytes(16), b"", 4)


def _log():
    log = MemoryLog.of(400)
    log.append([ENTRY, REFUSAL])
    log.append([b"later %d" % number for number in range(200)])
    return log


LOG = _log()
READER = TreeReader(LOG.hashes, LOG.size)
CHECKPOINT = sign_checkpoint(LOG.size, READER.root(), KEY, PRIVATE.sign)
RECEIPT = make_receipt(400, READER.inclusion(400), CHECKPOINT)


def test_a_receipt_has_the_lines_of_the_specification():
    lines = RECEIPT.decode().split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", "index 400"]
    assert all(len(line) == 44 for line in lines[2 : lines.index("")])
    assert RECEIPT.partition(b"\n\n")[2] == CHECKPOINT


def test_a_receipt_shows_that_the_entry_is_in_the_log():
    index, head = verify_receipt(RECEIPT, ENTRY, KEY)
    assert (index, head.size, head.origin) == (400, 602, KEY.name)


def test_a_receipt_ties_the_signature_to_its_record():
    record = verify_signature_receipt(RECEIPT, ENTRY, SIGNATURE, KEY)
    assert isinstance(record, Signed)
    assert record.group.key == "orders"


def test_another_signature_has_no_receipt():
    with pytest.raises(ReceiptError, match="another signature"):
        verify_signature_receipt(RECEIPT, ENTRY, SIGNATURE + b"!", KEY)


def test_a_signature_that_was_stripped_from_a_call_is_still_in_its_record():
    """I10: who takes the second signature away cannot take it out of the log."""
    second = SecondKey(2, 2, 1, bytes(32)).encode()
    hashes = [hashlib.sha256(one).digest() for one in (b"old", b"new")]
    entry = GROUP.signed_twice(1_700_000_000_000, bytes(16), bytes(32), hashes, second)
    log = MemoryLog.of(1)
    log.append([entry])
    reader = TreeReader(log.hashes, log.size)
    checkpoint = sign_checkpoint(log.size, reader.root(), KEY, PRIVATE.sign)
    receipt = make_receipt(1, reader.inclusion(1), checkpoint)
    assert verify_signature_receipt(receipt, entry, b"old", KEY)
    for both in ([b"old", b"new"], [b"new", b"old"]):
        assert isinstance(verify_receipt_of_all(receipt, entry, both, KEY), SignedTwice)
    with pytest.raises(ReceiptError, match="missing"):
        verify_receipt_of_all(receipt, entry, [b"old"], KEY)
    with pytest.raises(ReceiptError, match="other signatures"):
        verify_receipt_of_all(receipt, entry, [b"old", b"old"], KEY)
    assert verify_receipt_of_all(RECEIPT, ENTRY, [SIGNATURE], KEY)


def test_a_refusal_is_no_signature():
    receipt = make_receipt(401, READER.inclusion(401), CHECKPOINT)
    verify_receipt(receipt, REFUSAL, KEY)
    with pytest.raises(ReceiptError, match="does not record a signature"):
        verify_signature_receipt(receipt, REFUSAL, SIGNATURE, KEY)


def test_another_entry_has_another_receipt():
    with pytest.raises(ProofError):
        verify_receipt(RECEIPT, REFUSAL, KEY)
    with pytest.raises(ProofError):
        verify_receipt(make_receipt(401, READER.inclusion(400), CHECKPOINT), ENTRY, KEY)


def test_another_log_key_signs_nothing_of_ours():
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(NoteError):
        verify_receipt(RECEIPT, ENTRY, VerifierKey(KEY.name, other.public_key().public_bytes_raw()))


@given(st.integers(0, len(RECEIPT) - 1), st.integers(1, 255))
def test_a_receipt_with_any_byte_altered_is_refused(at, change):
    altered = bytearray(RECEIPT)
    altered[at] ^= change
    with pytest.raises((ReceiptError, NoteError, ProofError)):
        verify_receipt(bytes(altered), ENTRY, KEY)


@given(st.integers(0, len(RECEIPT) - 1))
def test_a_receipt_that_is_cut_off_is_refused(length):
    with pytest.raises((ReceiptError, NoteError, ProofError)):
        verify_receipt(RECEIPT[:length], ENTRY, KEY)


@given(st.integers(0, LOG.size - 1), st.integers(1, LOG.size))
def test_every_entry_of_every_tree_has_a_receipt(index, size):
    if index >= size:
        index, size = size - 1, index + 1
    reader = TreeReader(LOG.hashes, size)
    receipt = make_receipt(
        index, reader.inclusion(index), sign_checkpoint(size, reader.root(), KEY, PRIVATE.sign)
    )
    assert verify_receipt(receipt, LOG.entries[index], KEY)[0] == index


def test_extra_data_is_kept_and_means_nothing():
    receipt = Receipt.parse(
        Receipt(400, tuple(READER.inclusion(400)), CHECKPOINT, b"extra data").encode()
    )
    assert receipt.extra == b"extra data"
    assert verify_receipt(receipt.encode(), ENTRY, KEY)[0] == 400


def test_a_tree_of_one_leaf_has_a_receipt_without_hashes():
    log = MemoryLog()
    log.append([ENTRY])
    receipt = make_receipt(
        0, [], sign_checkpoint(1, TreeReader(log.hashes, 1).root(), KEY, PRIVATE.sign)
    )
    assert receipt.startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\nlog.capsign.test/main\n1\n")
    assert verify_receipt(receipt, ENTRY, KEY)[0] == 0


BODY = RECEIPT.partition(b"\n")[2]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\n\n",
        b"c2sp.org/tlog-proof@v2\n" + BODY,
        RECEIPT.replace(b"index 400", b"index 0400"),
        RECEIPT.replace(b"index 400", b"index +400"),
        RECEIPT.replace(b"index 400", b"index"),
        RECEIPT.replace(b"index 400", b"index 99999999999999999999"),
        RECEIPT.replace(b"index 400", b"index 9999999999999999999"),
        RECEIPT.replace(b"index 400\n", b""),
        RECEIPT.replace(b"index 400", b"extra \nindex 400"),
        RECEIPT.replace(b"index 400", b"extra QQ==\nextra QQ==\nindex 400"),
        RECEIPT.replace(b"index 400\n", b"index 400\nQQ==\n"),
        RECEIPT.replace(b"index 400\n", b"index 400\r\n"),
        RECEIPT.replace(b"index 400\n", b"index 400\n" + b"A" * 43 + b"=\n" * 100),
        b"\xff" + RECEIPT,
        RECEIPT + b"x" * 70_000,
    ],
)
def test_a_malformed_receipt_is_refused(damaged):
    with pytest.raises(ReceiptError):
        Receipt.parse(damaged)
