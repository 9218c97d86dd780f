"""C2SP checkpoints and RFC 6962 hashing, as little as a verifier needs. Pure.

The adapter has code of its own for this; a verifier that shared it would share its mistakes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from capsign_cli.failures import REFUSED, USAGE, CliError

ED25519 = b"\x01"


@dataclass(frozen=True, slots=True)
class Head:
    """What a checkpoint states."""

    origin: str
    size: int
    root: bytes


def open_checkpoint(note: bytes, verifier_key: str) -> Head:
    """What a checkpoint states, once its signature by that key is verified. Raises CliError."""
    name, key_id, public = _key(verifier_key)
    try:
        text, _, signatures = note.decode().rpartition("\n\n")
        text += "\n"
        lines = [line.removeprefix("— ").split(" ") for line in signatures.splitlines() if line.startswith("— ")]
        found = [base64.b64decode(line[1], validate=True) for line in lines if len(line) == 2 and line[0] == name]
        ours = [signature[4:] for signature in found if signature[:4] == key_id]
        if not ours:
            raise _bad(f"No signature by {name} is on the checkpoint.")
        Ed25519PublicKey.from_public_bytes(public).verify(ours[0], text.encode())
        origin, size, root = text.split("\n")[:3]
        head = Head(origin, int(size), base64.b64decode(root, validate=True))
    except InvalidSignature:
        raise _bad("The checkpoint's signature does not verify.") from None
    except (ValueError, binascii.Error):
        raise _bad("The checkpoint is malformed.") from None
    if head.origin != name or str(head.size) != size or head.size < 0 or len(head.root) != 32:
        raise _bad("The checkpoint is not one of this log.")
    return head


def _bad(text: str) -> CliError:
    return CliError(REFUSED, "CHECKPOINT_INVALID", text, "Do not trust this log until you know why.")


def _key(text: str) -> tuple[str, bytes, bytes]:
    try:
        name, key_id, encoded = text.split("+", 2)
        data = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise CliError(USAGE, "LOG_KEY_MALFORMED", "A log key is name+id+base64.", "Copy it whole.") from None
    expected = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
    if data[:1] != ED25519 or len(data) != 33 or expected.hex() != key_id:
        raise CliError(USAGE, "LOG_KEY_MALFORMED", "The log key's id does not belong to it.", "Copy it whole.")
    return name, expected, data[1:]


class Frontier:
    """The roots of the complete subtrees of a tree that grows at its right end; log2(size) hashes."""

    def __init__(self) -> None:
        self.size = 0
        self._roots: list[bytes] = []

    def append(self, entry: bytes) -> None:
        """Add one entry."""
        node = hashlib.sha256(b"\x00" + entry).digest()
        size = self.size
        while size & 1:
            node = _join(self._roots.pop(), node)
            size >>= 1
        self._roots.append(node)
        self.size += 1

    def root(self) -> bytes:
        """RFC 6962 section 2.1."""
        if not self._roots:
            return hashlib.sha256().digest()
        node = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            node = _join(left, node)
        return node


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def split_bundle(bundle: bytes) -> list[bytes]:
    """The entries of a C2SP entry bundle: each with its length before it, 16 bits big-endian. Raises CliError."""
    entries, at = [], 0
    while at < len(bundle):
        length = int.from_bytes(bundle[at : at + 2], "big")
        end = at + 2 + length
        if end > len(bundle):
            raise CliError(REFUSED, "EVIDENCE_DOES_NOT_ADD_UP", "An entry bundle is cut off.", "Fetch it again.")
        entries.append(bundle[at + 2 : end])
        at = end
    return entries
