"""C2SP tlog-cosignature: statements of a cosigner, or of the log itself, that a checkpoint is
consistent with all it has seen, with Ed25519 (signature type 0x04) or ML-DSA-44 (0x06).

A cosignature is a signature line of the checkpoint's note. It holds the time of the statement, 64
bits big-endian, seconds since 1970, and the signature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.note import (
    ED25519,
    NoteError,
    SignatureLine,
    VerifierKey,
    check_name,
    key_id_of,
    parse_vkey,
    vkey,
)

COSIGNATURE_ED25519 = 0x04
COSIGNATURE_ML_DSA_44 = 0x06

MAX_TIME = (1 << 63) - 1
"""Latest time of a statement, seconds since 1970."""

MAX_NAME_LEN = 255
"""Longest name of a cosigner, bytes: ML-DSA-44 cosignatures state its length in one."""

TIME_LEN = 8

_KEY_LEN = {COSIGNATURE_ED25519: 32, COSIGNATURE_ML_DSA_44: 1312}
_SIGNATURE_LEN = {COSIGNATURE_ED25519: 64, COSIGNATURE_ML_DSA_44: 2420}
_LABEL = b"subtree/v1\n\0"


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """Name, signature type and public key of a cosigner. It verifies notes as `VerifierKey` does.

    An ML-DSA-44 cosignature says nothing about extension lines of the checkpoint.
    """

    name: str
    kind: int
    public_key: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.name.encode()) > MAX_NAME_LEN:
            raise NoteError(f"the name of a cosigner has at most {MAX_NAME_LEN} bytes")
        if len(self.public_key) != _KEY_LEN.get(self.kind):
            raise NoteError("a cosigner has an Ed25519 key of 32 or an ML-DSA-44 key of 1312 bytes")

    @property
    def key_id(self) -> bytes:
        """First 4 bytes of SHA-256(name, newline, type, public key)."""
        return key_id_of(self.name, self.kind, self.public_key)

    @property
    def covers_extensions(self) -> bool:
        """ML-DSA-44 cosignatures do not."""
        return self.kind == COSIGNATURE_ED25519

    def text(self) -> str:
        """The key as people pass it on (vkey)."""
        return vkey(self.name, self.kind, self.public_key)

    def message(self, text: str, time_s: int) -> bytes:
        """What is signed to cosign the checkpoint with this text. Raises NoteError."""
        head = TreeHead.parse(text)
        if self.kind == COSIGNATURE_ED25519:
            return f"cosignature/v1\ntime {time_s}\n{text}".encode()
        return subtree_message(self.name, time_s, head)

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raise NoteError unless this key cosigned the checkpoint with this text."""
        time_s, raw = _split(self, signature)
        message = self.message(text.decode(), time_s)
        try:
            if self.kind == COSIGNATURE_ED25519:
                Ed25519PublicKey.from_public_bytes(self.public_key).verify(raw, message)
            else:
                MLDSA44PublicKey.from_public_bytes(self.public_key).verify(raw, message)
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            raise NoteError(f"the cosignature by {self.name} does not verify") from None

    def time_s(self, signature: bytes) -> int:
        """The time that a cosignature of this key states, seconds since 1970; 0: the cosigner does
        not say that the tree was the largest that it had seen. Raises NoteError.
        """
        return _split(self, signature)[0]


def subtree_message(cosigner: str, time_s: int, head: TreeHead) -> bytes:
    """The `cosigned_message` of a whole tree that an ML-DSA-44 key signs."""
    name, origin = cosigner.encode(), head.origin.encode()
    return b"".join(
        (
            _LABEL,
            bytes((len(name),)),
            name,
            time_s.to_bytes(8, "big"),
            bytes((len(origin),)),
            origin,
            bytes(8),  # a checkpoint is the subtree that starts with the first leaf
            head.size.to_bytes(8, "big"),
            head.root,
        )
    )


def cosign(
    text: str, key: CosignerKey, time_s: int, sign: Callable[[bytes], bytes]
) -> SignatureLine:
    """A cosignature of the checkpoint with this text. `sign` makes the raw signature of the private
    half of `key`: Ed25519, or ML-DSA-44 with an empty context.

    It is verified before it is returned. Raises NoteError.
    """
    if not 0 <= time_s <= MAX_TIME:
        raise NoteError("the time of a cosignature is out of range")
    raw = sign(key.message(text, time_s))
    line = SignatureLine(key.name, key.key_id, time_s.to_bytes(TIME_LEN, "big") + raw)
    key.verify(text.encode(), line.signature)
    return line


def parse_key(text: str) -> VerifierKey | CosignerKey:
    """The key of a vkey of one of the three types that sign checkpoints. Raises NoteError."""
    name, kind, public_key = parse_vkey(text)
    if kind == ED25519:
        return VerifierKey(name, public_key)
    if kind not in _KEY_LEN:
        raise NoteError(
            f"keys of signature type 0x{kind:02x} are not known here: give one of type "
            "0x01, 0x04 or 0x06"
        )
    return CosignerKey(name, kind, public_key)


def _split(key: CosignerKey, signature: bytes) -> tuple[int, bytes]:
    if len(signature) != TIME_LEN + _SIGNATURE_LEN[key.kind]:
        raise NoteError(f"the cosignature by {key.name} has not the length of its type")
    time_s = int.from_bytes(signature[:TIME_LEN], "big")
    if time_s > MAX_TIME:
        raise NoteError(f"the cosignature by {key.name} states a time that is out of range")
    return time_s, signature[TIME_LEN:]
