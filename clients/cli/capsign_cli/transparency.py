"""C2SP checkpoints and RFC 6962 hashing, as much as a verifier needs. Pure.

The adapter uses `capsign_evidence` for this. The verifier shares no code with it, so that it does
not share its mistakes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from capsign_cli.failures import REFUSED, USAGE, CliError

ED25519 = b"\x01"
ML_DSA_44 = b"\x06"
"""Types of verifier keys: a plain signature, and a cosignature of C2SP tlog-cosignature."""

MAX_SIZE = (1 << 63) - 1
"""Most leaves of a log."""

MAX_NOTE = 64 * 1024
"""Longest checkpoint that is read, bytes."""

MAX_SIGNATURES = 64
"""Most signature lines that are read; the specification demands 16."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a checkpoint states."""

    origin: str
    size: int
    root: bytes


def open_checkpoint(note: bytes, verifier_key: str) -> Head:
    """The content of a checkpoint whose signature by that key verifies. Raises CliError.

    It is strict, because an auditor that reads what others refuse could be shown another log.
    Signature lines of other keys must be well formed and are not verified; a bad signature under
    the expected key's name fails the whole.
    """
    name, key_id, kind, public = _key(verifier_key)
    try:
        text, lines = _parts(note)
        ours = [
            signature for signer, number, signature in lines if (signer, number) == (name, key_id)
        ]
        if not ours:
            raise _bad(f"No signature by {name} is on the checkpoint.")
        for signature in ours:
            _verify(kind, public, name, text, signature)
        origin, size, root, *extensions = text.removesuffix("\n").split("\n")
        head = Head(origin, int(size), _base64(root))
    except InvalidSignature:
        raise _bad("The checkpoint's signature does not verify.") from None
    except (ValueError, OverflowError):
        raise _bad("The checkpoint is malformed.") from None
    if (
        head.origin != name
        or str(head.size) != size
        or not 0 <= head.size <= MAX_SIZE
        or len(head.root) != 32
        or not all(extensions)
    ):
        raise _bad("The checkpoint is not one of this log.")
    return head


def _verify(kind: bytes, public: bytes, name: str, text: str, signature: bytes) -> None:
    """Raises InvalidSignature, ValueError."""
    if kind == ED25519:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text.encode())
        return
    if len(signature) != 8 + 2420 or signature[0] & 0x80:
        raise ValueError("a time of 8 bytes and a signature with ML-DSA-44")
    origin, size, root = text.split("\n")[:3]
    head = [int(size).to_bytes(8, "big"), _base64(root)]
    # C2SP tlog-cosignature, `cosigned_message`: names have their length in one byte before them
    signer, log = name.encode(), origin.encode()
    parts = [b"subtree/v1\n\0", bytes((len(signer),)), signer, signature[:8]]
    message = b"".join([*parts, bytes((len(log),)), log, bytes(8), *head])
    MLDSA44PublicKey.from_public_bytes(public).verify(signature[8:], message)


def _parts(note: bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Text of a C2SP signed-note, and the name, key id and signature of each line below it. Raises
    ValueError.
    """
    if len(note) > MAX_NOTE:
        raise ValueError("longer than any checkpoint")
    whole = note.decode()
    text, separator, signatures = whole.rpartition("\n\n")
    if not separator or any(ord(letter) < 0x20 and letter != "\n" for letter in whole):
        raise ValueError("not text, an empty line and signatures")
    *lines, rest = signatures.split("\n")
    if rest or not lines or len(lines) > MAX_SIGNATURES:
        raise ValueError("signature lines end with a newline each")
    return text + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    dash, name, encoded = line.split(" ")
    data = _base64(encoded)
    if dash != "\u2014" or not name or "+" in name or any(map(str.isspace, name)) or len(data) < 5:
        raise ValueError("a signature line is a dash, a name, and key id and signature in base64")
    return name, data[:4], data[4:]


def _base64(text: str) -> bytes:
    """Decode RFC 4648 section 4; only the canonical encoding is accepted."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data


def _bad(text: str) -> CliError:
    return CliError(
        REFUSED, "CHECKPOINT_INVALID", text, "Do not trust this log until you know why."
    )


def _key(text: str) -> tuple[str, bytes, bytes, bytes]:
    """Name, key id, type and public key. Raises CliError."""
    try:
        name, key_id, encoded = text.split("+", 2)
        data = _base64(encoded)
    except ValueError:
        raise CliError(
            USAGE, "LOG_KEY_MALFORMED", "A log key is name+id+base64.", "Copy it whole."
        ) from None
    expected = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
    lengths = {ED25519: 32, ML_DSA_44: 1312}
    if len(data[1:]) != lengths.get(data[:1]) or expected.hex() != key_id:
        raise CliError(
            USAGE, "LOG_KEY_MALFORMED", "The log key's id does not belong to it.", "Copy it whole."
        )
    return name, expected, data[:1], data[1:]


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf, RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


class Frontier:
    """The roots of the complete subtrees of a growing tree: log2(size) hashes."""

    def __init__(self) -> None:
        self.size = 0
        self._roots: list[bytes] = []

    def append(self, entry: bytes) -> None:
        """Add one entry."""
        self._push(leaf_hash(entry), 0)

    def extend(self, hashes: Sequence[bytes]) -> bytes:
        """Add leaves, by their hashes. Returns the root over them alone if they are a complete
        subtree of this tree: a power of two that begins at a multiple of itself; else the root of
        the tree.
        """
        width = len(hashes)
        if not width or width & (width - 1) or self.size % width:
            for each in hashes:
                self._push(each, 0)
            return self.root()
        sha256 = hashlib.sha256
        row, level = list(hashes), 0
        while len(row) > 1:
            pairs = iter(row)
            row = [sha256(b"\x01" + left + next(pairs)).digest() for left in pairs]
            level += 1
        self._push(row[0], level)
        return row[0]

    def _push(self, node: bytes, level: int) -> None:
        """Add the root of a complete subtree of 2**level leaves."""
        size = self.size >> level
        while size & 1:
            node = _join(self._roots.pop(), node)
            size >>= 1
        self._roots.append(node)
        self.size += 1 << level

    def root(self) -> bytes:
        """The tree's root, RFC 6962 section 2.1."""
        if not self._roots:
            return hashlib.sha256().digest()
        node = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            node = _join(left, node)
        return node


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def compare(head: Head, before: Head | None, entries: Iterable[bytes]) -> None:
    """Raises CliError unless these entries are the tree of `head`, and begin with the tree of
    `before`.
    """
    if before is not None and before.size > head.size:
        raise _mismatch(f"The log has shrunk from {before.size} to {head.size} leaves.")
    if before is not None and before.size == head.size and before.root != head.root:
        raise _mismatch("The log's key signed two different trees of the same size.")
    tree = Frontier()
    for entry in entries:
        if before is not None and tree.size == before.size and tree.root() != before.root:
            raise _mismatch(
                f"The log's first {before.size} entries are not those of the checkpoint "
                f"that was remembered."
            )
        tree.append(entry)
    if tree.root() != head.root:
        raise _mismatch(f"The root of the {head.size} entries is not the root that was signed.")


def _mismatch(text: str) -> CliError:
    advice = (
        "This is an incident: keep the store and the checkpoint as they are, and tell the auditors."
    )
    return CliError(REFUSED, "EVIDENCE_DOES_NOT_ADD_UP", text, advice)


def split_bundle(bundle: bytes, width: int) -> list[bytes]:
    """The `width` entries of a C2SP entry bundle: each with its length before it, 16 bits
    big-endian. Raises CliError.
    """
    entries: list[bytes] = []
    at = 0
    # Counted before they are cut: entries of no bytes at all would be ten million in one answer.
    while at < len(bundle) and len(entries) < width:
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        entries.append(bundle[at + 2 : end])
        at = end
    if at != len(bundle) or len(entries) != width:
        text = f"An entry bundle is cut off, or has not the {width} entries that it should have."
        raise CliError(
            REFUSED,
            "EVIDENCE_DOES_NOT_ADD_UP",
            text,
            "Fetch it again; if it stays so, this is an incident.",
        )
    return entries
