"""C2SP tlog-proof: a receipt that shows, offline and to anybody who has the log's key, that an
entry is in the log.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from capsign_evidence.checkpoint import TreeHead, open_checkpoint
from capsign_evidence.leaf_reader import Signed, SignedTwice, decode
from capsign_evidence.merkle import HASH_LEN, MAX_SIZE, leaf_hash
from capsign_evidence.note import VerifierKey, decode_base64
from capsign_evidence.proofs import MAX_PROOF_HASHES, verify_inclusion

HEADER = "c2sp.org/tlog-proof@v1"
SUFFIX = ".tlog-proof"
"""How files with receipts are named."""

MAX_RECEIPT_LEN = 64 * 1024
"""Longest receipt that is read, bytes."""


class ReceiptError(ValueError):
    """A receipt is malformed, or does not belong to this entry or signature."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Index of an entry, its inclusion proof, and the checkpoint (a note, verbatim) of the tree the
    proof is for.

    `extra` is not authenticated by anything; ours is always empty.
    """

    index: int
    proof: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def encode(self) -> bytes:
        """The text, UTF-8."""
        lines = [HEADER]
        if self.extra:
            lines.append(f"extra {base64.b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines.extend(base64.b64encode(value).decode() for value in self.proof)
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> Receipt:
        """The parts of a receipt, nothing verified. Raises ReceiptError unless it is the one
        spelling of them.
        """
        if len(data) > MAX_RECEIPT_LEN:
            raise ReceiptError(f"a receipt has at most {MAX_RECEIPT_LEN} bytes")
        head, separator, checkpoint = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
            header, *rest = lines
            extra = (
                decode_base64(rest.pop(0).removeprefix("extra "))
                if rest and rest[0].startswith("extra ")
                else b""
            )
            index, *hashes = rest
            number = index.removeprefix("index ")
            if header != HEADER or not separator or not (number.isdigit() and len(number) <= 19):
                raise ReceiptError(
                    f"a receipt starts with {HEADER}, the index and the proof, then has "
                    f"an empty line"
                )
            proof = tuple(decode_base64(value) for value in hashes)
        except ValueError as error:
            raise (
                error
                if isinstance(error, ReceiptError)
                else ReceiptError("the proof of the receipt is malformed")
            ) from None
        if (
            len(proof) > MAX_PROOF_HASHES
            or any(len(value) != HASH_LEN for value in proof)
            or int(number) > MAX_SIZE
        ):
            raise ReceiptError("the index or proof of the receipt is out of range")
        receipt = cls(int(number), proof, checkpoint, extra)
        if receipt.encode() != data:
            raise ReceiptError("the receipt is not in its canonical form")
        return receipt


def make_receipt(index: int, proof: Sequence[bytes], checkpoint: bytes) -> bytes:
    """The receipt of leaf `index`, whose proof is for the tree of this checkpoint."""
    return Receipt(index, tuple(proof), checkpoint).encode()


def verify_receipt(data: bytes, entry: bytes, key: VerifierKey) -> tuple[int, TreeHead]:
    """Returns the index of the entry and the tree that holds it.

    1 the receipt is well formed; 2 the log's key signed its checkpoint; 3 the proof leads from the
    entry to that root. Raises ReceiptError, NoteError or ProofError accordingly.
    """
    receipt = Receipt.parse(data)
    head = open_checkpoint(receipt.checkpoint, key)
    verify_inclusion(receipt.index, head.size, leaf_hash(entry), receipt.proof, head.root)
    return receipt.index, head


def verify_signature_receipt(
    data: bytes, entry: bytes, signature: bytes, key: VerifierKey
) -> Signed | SignedTwice:
    """Returns the log's record of a signature: as `verify_receipt`, and the entry must be the
    record of exactly these signature bytes; of two signatures of one call, either.

    It does not verify the signature itself: that takes the public key and the message. Raises
    LeafError too.
    """
    record, recorded = _recorded(data, entry, key)
    found = hashlib.sha256(signature).digest()
    if not any(hmac.compare_digest(one, found) for one in recorded):
        raise ReceiptError("the entry records another signature")
    return record


def verify_receipt_of_all(
    data: bytes, entry: bytes, signatures: Sequence[bytes], key: VerifierKey
) -> Signed | SignedTwice:
    """Returns the log's record of a call: as `verify_signature_receipt`, and these must be all its
    signatures, in any order. Where one of two was taken away on its way, the log still names it.
    """
    record, recorded = _recorded(data, entry, key)
    found = sorted(hashlib.sha256(signature).digest() for signature in signatures)
    if len(found) < len(recorded):
        raise ReceiptError("the entry records a signature that is missing")
    if not hmac.compare_digest(b"".join(found), b"".join(sorted(recorded))):
        raise ReceiptError("the entry records other signatures")
    return record


def _recorded(
    data: bytes, entry: bytes, key: VerifierKey
) -> tuple[Signed | SignedTwice, list[bytes]]:
    """The record of a call, whose receipt is verified, and the hashes of its signatures."""
    verify_receipt(data, entry, key)
    record = decode(entry)
    if not isinstance(record, Signed | SignedTwice):
        raise ReceiptError("the entry does not record a signature")
    if isinstance(record, SignedTwice):
        return record, [record.signature_hash, record.second_signature_hash]
    return record, [record.signature_hash]
