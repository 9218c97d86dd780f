"""Receipts: proof that an intent's entry is in the evidence log, and the bundle with which a third
party checks a signature and its receipt.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from capsign.results import PublicKey, Signature

BUNDLE_FORMAT = "capsign-bundle@v1"
"""What the member `format` of a bundle says (docs/formats.md)."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt as the adapter gave it; nothing of it is verified here. `capsign verify --receipt`
    does that, and so can anybody with the log's key.
    """

    text: bytes
    """C2SP tlog-proof, UTF-8: what a `.tlog-proof` file holds."""
    entry: bytes = field(repr=False)
    """The entry of the log that it is for."""
    log_key: str
    """The log's verifier key, as the adapter says: whoever verifies has it from elsewhere."""
    intent_id: bytes
    signatures: tuple[Signature, ...] = field(default=(), repr=False)
    """The signatures that it was asked for with."""

    @property
    def leaf_index(self) -> int:
        """The entry's place in the log."""
        return int(self.text.partition(b"\nindex ")[2].partition(b"\n")[0])

    def bundle(self, keys: Iterable[PublicKey] = ()) -> bytes:
        """Signature, entry and receipt in one JSON file, with the public keys that signed if `keys`
        has them (`Signer.public_keys` gives them).

        Raises ValueError if this was asked for by an intent id alone: then it knows no signature.
        """
        if not self.signatures:
            raise ValueError("this receipt knows no signature: ask for it with one")
        known = {key.kid: key for key in keys if key.spki}
        whole = {
            "format": BUNDLE_FORMAT,
            "signatures": [_member(one, known.get(one.kid)) for one in self.signatures],
            "entry": _text(self.entry),
            "receipt": self.text.decode(),
            "log_key": self.log_key,
        }
        return json.dumps(whole, ensure_ascii=False, indent=2).encode() + b"\n"


def _member(signature: Signature, key: PublicKey | None) -> dict[str, Any]:
    member = {
        "algorithm": signature.algorithm,
        "kid": signature.kid,
        "value": _text(signature.value),
    }
    if key is not None:
        member["public_key"] = key.pem
    if signature.attestation:
        member["attestation"] = _text(signature.attestation)
    return member


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
