"""The bundle: a signature, the log's entry of it and the receipt in one JSON file, and what it
proves to whoever has the log's key and the signer's public key from elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.leaf_reader import Signed, SignedTwice, decode
from capsign_evidence.merkle import leaf_hash
from capsign_evidence.note import decode_base64
from capsign_evidence.proofs import verify_inclusion
from capsign_evidence.receipt import Receipt, ReceiptError

FORMAT = "capsign-bundle@v1"
SUFFIX = ".capsign-bundle"
"""How files with bundles are named."""

MAX_BUNDLE_LEN = 1024 * 1024
"""Longest bundle that is read, bytes."""

MAX_SIGNATURES = 2
"""Signatures of one call."""


@dataclass(frozen=True, slots=True)
class BundledSignature:
    """A signature, and what the bundle says made it; only the log says whether that is so."""

    algorithm: str
    """JOSE name."""
    kid: str
    value: bytes
    public_key: str
    """PEM; empty: the bundle has none."""
    attestation: bytes
    """DSSE envelope; empty: none."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The parts of a bundle, nothing verified."""

    signatures: tuple[BundledSignature, ...]
    entry: bytes
    receipt: bytes
    """C2SP tlog-proof."""
    log_key: str
    """As the bundle says; to believe it is to believe whoever made the bundle."""

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """The parts of a bundle. Raises ReceiptError."""
        if len(data) > MAX_BUNDLE_LEN:
            raise ReceiptError(f"a bundle has at most {MAX_BUNDLE_LEN} bytes")
        try:
            whole = json.loads(data.decode(), object_pairs_hook=_once)
            if not isinstance(whole, dict) or whole.get("format") != FORMAT:
                raise ReceiptError(f"a bundle is a JSON object whose format is {FORMAT}")
            members = whole["signatures"]
            if not isinstance(members, list) or not 1 <= len(members) <= MAX_SIGNATURES:
                raise ReceiptError(f"a bundle has 1 to {MAX_SIGNATURES} signatures")
            return cls(
                signatures=tuple(_signature(one) for one in members),
                entry=decode_base64(_text(whole, "entry")),
                receipt=_text(whole, "receipt").encode(),
                log_key=_text(whole, "log_key"),
            )
        except KeyError as error:
            raise ReceiptError(f"the bundle has no member {error}") from None
        except ReceiptError:
            raise
        except (ValueError, RecursionError):
            raise ReceiptError("the bundle is malformed") from None


@dataclass(frozen=True, slots=True)
class Proven:
    """What a verified bundle proves: this entry is at this place of this tree."""

    index: int
    head: TreeHead
    record: Signed | SignedTwice


def verify_bundle(bundle: Bundle, open_head: Callable[[bytes], TreeHead]) -> Proven:
    """What the log says of the bundle's signatures. `open_head` verifies the checkpoint's
    signatures, by a log's key or a policy, and returns its content.

    1 the receipt is well formed; 2 its checkpoint is signed as `open_head` demands; 3 the proof
    leads from the entry to that root; 4 the entry records exactly these signatures. The signatures
    themselves are verified with message and public key. Raises ReceiptError, NoteError, ProofError
    or LeafError.
    """
    receipt = Receipt.parse(bundle.receipt)  # 1
    head = open_head(receipt.checkpoint)  # 2
    verify_inclusion(  # 3
        receipt.index, head.size, leaf_hash(bundle.entry), receipt.proof, head.root
    )
    record = decode(bundle.entry)  # 4
    if not isinstance(record, Signed | SignedTwice):
        raise ReceiptError("the entry does not record a signature")
    recorded = [record.signature_hash]
    if isinstance(record, SignedTwice):
        recorded.append(record.second_signature_hash)
    _same(recorded, [hashlib.sha256(one.value).digest() for one in bundle.signatures])
    return Proven(receipt.index, head, record)


def _same(recorded: Sequence[bytes], found: Sequence[bytes]) -> None:
    if len(found) < len(recorded) and set(found) < set(recorded):
        raise ReceiptError("the entry records a signature that is missing from the bundle")
    if sorted(found) != sorted(recorded):
        raise ReceiptError("the entry records another signature than the bundle has")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members are all named once: of two, readers would take different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ReceiptError("the bundle has a member twice")
    return found


def _signature(member: Any) -> BundledSignature:
    if not isinstance(member, dict):
        raise ReceiptError("a signature of the bundle is a JSON object")
    attestation = _text(member, "attestation", "")
    return BundledSignature(
        algorithm=_text(member, "algorithm"),
        kid=_text(member, "kid"),
        value=decode_base64(_text(member, "value")),
        public_key=_text(member, "public_key", ""),
        attestation=decode_base64(attestation) if attestation else b"",
    )


def _text(members: dict[str, Any], name: str, default: str | None = None) -> str:
    value = members[name] if default is None else members.get(name, default)
    if not isinstance(value, str):
        raise ReceiptError(f"the member {name} of the bundle is text")
    return value
