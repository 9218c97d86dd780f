"""The keys of the log: the Ed25519 pair in the token, and an ML-DSA-44 key that is derived from a
secret there, because tokens do not sign with ML-DSA (decision 55). Each signs every checkpoint, so
that whoever knows one of them can verify.
"""

from __future__ import annotations

from capsign_evidence.checkpoint import TreeHead, sign_checkpoint
from capsign_evidence.cosignature import COSIGNATURE_ML_DSA_44, CosignerKey, cosign
from capsign_evidence.note import VerifierKey, add_lines, parse_note
from capsign_wire.types.v1 import algorithms_pb2
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from capsign_adapter.algorithms.expand import expand, wipe
from capsign_adapter.decide.context import hkdf_info
from capsign_adapter.keys import labels
from capsign_adapter.keys.provision import InventoryError
from capsign_adapter.token.interface import KeyMissingError, Token

SEED_LEN = 32
PURPOSE = "log ml-dsa-44"
"""In the HkdfLabel of the seed."""

_ED25519_LEN = 64


class LogKeys:
    """Signs checkpoints of one origin. Safe for any thread."""

    def __init__(self, token: Token, origin: str) -> None:
        """Reads the public key and derives the other one. Without the secret, which tokens of
        before this release lack until `provision` has run, there is no ML-DSA-44 key. Raises
        TokenError.
        """
        self._token = token
        # RFC 8410: the SubjectPublicKeyInfo ends with the 32 bytes of the key
        self.classic = VerifierKey(origin, token.public_key(labels.LOG)[-32:])
        self._private = _quantum_safe(token)
        self.quantum_safe = (
            CosignerKey(
                origin, COSIGNATURE_ML_DSA_44, self._private.public_key().public_bytes_raw()
            )
            if self._private is not None
            else None
        )

    @property
    def verifiers(self) -> tuple[VerifierKey | CosignerKey, ...]:
        """The public keys, Ed25519 first."""
        return (self.classic, *([self.quantum_safe] if self.quantum_safe else []))

    def sign(self, size: int, root: bytes, now_s: int) -> bytes:
        """A checkpoint with a signature by each key, verified. `now_s`: seconds since 1970, before
        the tree was read. Raises TokenError, NoteError.
        """
        note = sign_checkpoint(size, root, self.classic, self._sign)
        if self._private is None or self.quantum_safe is None:
            return note
        text = TreeHead(self.classic.name, size, root).text()
        return add_lines(note, [cosign(text, self.quantum_safe, now_s, self._private.sign)])

    def _sign(self, text: bytes) -> bytes:
        return self._token.sign(labels.LOG, algorithms_pb2.ALGORITHM_ED25519, text)


def demand_known(note: bytes, quantum_safe: bool) -> None:
    """Raise InventoryError if the log signed this checkpoint of ours with ML-DSA-44 and has no such
    key any more: verifiers would silently be left with the other.
    """
    parsed = parse_note(note)
    origin = TreeHead.parse(parsed.text).origin
    longest = max(len(line.signature) for line in parsed.lines if line.name == origin)
    if longest > _ED25519_LEN and not quantum_safe:
        raise InventoryError([f"The key {labels.LOG_ROOT} is missing from the token."])


def _quantum_safe(token: Token) -> MLDSA44PrivateKey | None:
    """HKDF-Expand of the secret, with the HkdfLabel "capsign1 log ml-dsa-44" and an empty context;
    every replica on this token gets the same.
    """
    info = hkdf_info(PURPOSE, b"", SEED_LEN)
    try:
        seed = expand(lambda data: token.hmac(labels.LOG_ROOT, data), info, SEED_LEN)
    except KeyMissingError:
        return None
    try:
        return MLDSA44PrivateKey.from_seed_bytes(seed)
    finally:
        wipe(seed)
