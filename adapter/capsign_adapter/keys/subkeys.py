"""From keying material, or a label in the token, to an object that signs.

A subkey lives as an OpenSSL object (HS256: as a byte array) until the last user lets go of it.
OpenSSL clears P-256 and Ed25519 scalars when it frees them; of an ML-DSA key the 32-byte seed may
stay behind in freed memory.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from capsign_adapter.keys.det_keygen import p256_from_seed
from capsign_adapter.keys.expand import wipe
from capsign_adapter.keys.kid import hs256_kid, thumbprint
from capsign_adapter.token.interface import KeyMissingError, PinRejectedError, Token, TokenError

# OpenSSL mixes fresh randomness with the private key and the digest into the nonce (hedged), so
# neither a poor random source nor an induced fault gives the key away; RFC 6979's deterministic
# nonces would resist only the first. We do not need determinism: a repeated intent gets its stored
# bytes from the ledger, it is not signed again.
_ECDSA = ec.ECDSA(Prehashed(hashes.SHA256()))


class Subkey(Protocol):
    """Something that signs for one context."""

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo, DER; empty for HMAC."""

    @property
    def kid(self) -> str:
        """The key id; see `kid.py`."""

    def sign(self, data: bytes) -> bytes:
        """A signature over what the algorithm's row sends upstream. Safe to call from many
        threads.
        """


def token_failure(error: TokenError) -> FailureError:
    """What a caller is told when the token gave no answer. The label stays out of it: `error` is
    for the log.
    """
    if isinstance(error, KeyMissingError):
        detail = "The token holds no object for this key; nothing was made in its place."
    elif isinstance(error, PinRejectedError):
        detail = "The token refused the adapter's PIN."
    else:
        detail = "The token gave no answer."
    return FailureError(reasons.REASON_TOKEN_UNAVAILABLE, detail)


def _demand(data: bytes, length: int) -> None:
    if len(data) != length:
        raise FailureError(
            reasons.REASON_INPUT_MALFORMED,
            f"This algorithm signs exactly {length} bytes.",
            field="input",
        )


@dataclass(frozen=True, slots=True, repr=False)
class Ed25519Subkey:
    """RFC 8032, pure Ed25519: signs the message itself. 64 bytes."""

    key: ed25519.Ed25519PrivateKey
    spki: bytes
    kid: str

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data)


@dataclass(frozen=True, slots=True, repr=False)
class Es256Subkey:
    """ECDSA on P-256 over a SHA-256 digest; DER."""

    key: ec.EllipticCurvePrivateKey
    spki: bytes
    kid: str

    def sign(self, data: bytes) -> bytes:
        _demand(data, 32)
        return self.key.sign(data, _ECDSA)


@dataclass(frozen=True, slots=True, repr=False)
class MlDsa65Subkey:
    """FIPS 204 ML-DSA-65 over an external mu (section 6.2), hedged. 3309 bytes."""

    key: mldsa.MLDSA65PrivateKey
    spki: bytes
    kid: str

    def sign(self, data: bytes) -> bytes:
        _demand(data, 64)
        return self.key.sign_mu(data)


class Hs256Subkey:
    """HMAC-SHA256 with the key in the adapter's memory. 32 bytes.

    The one-shot function keeps no state between calls: an `hmac` object would hold midstates that
    are as good as the key.
    """

    __slots__ = ("_key", "kid", "spki")

    def __init__(self, okm: bytearray, kid: str) -> None:
        self._key = bytearray(okm)
        self.spki = b""
        self.kid = kid

    def sign(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, "sha256")

    def __del__(self) -> None:
        # Not when the cache lets go, but when the last user does: a call in flight must never sign
        # with a key of zeros.
        wipe(self._key)


@dataclass(frozen=True, slots=True, repr=False)
class InsideHs256Subkey:
    """HMAC-SHA256 with a subkey that is derived, and stays, inside the token."""

    token: Token
    label: str
    info: bytes
    kid: str
    spki: bytes = b""

    def sign(self, data: bytes) -> bytes:
        try:
            return self.token.hkdf_hmac(self.label, self.info, data)
        except TokenError as error:
            raise token_failure(error) from error


@dataclass(frozen=True, slots=True, repr=False)
class DirectKey:
    """A key pair that was generated in the token and signs there."""

    token: Token
    label: str
    algorithm: algorithms.Algorithm.ValueType
    spki: bytes
    kid: str

    def sign(self, data: bytes) -> bytes:
        row = ALGORITHMS[self.algorithm]
        if row.takes_digest:
            _demand(data, row.max_input)
        try:
            return self.token.sign(self.label, self.algorithm, data)
        except TokenError as error:
            raise token_failure(error) from error


def direct_key(token: Token, label: str, algorithm: algorithms.Algorithm.ValueType) -> DirectKey:
    """The in-token key pair `label`. Raises TokenError."""
    spki = token.public_key(label)
    return DirectKey(token, label, algorithm, spki, thumbprint(spki))


def _spki(
    public: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | mldsa.MLDSA65PublicKey,
) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _ed25519(okm: bytearray, _kid: str) -> Subkey:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(okm)
    spki = _spki(key.public_key())
    return Ed25519Subkey(key, spki, thumbprint(spki))


def _es256(okm: bytearray, _kid: str) -> Subkey:
    key = p256_from_seed(okm)
    spki = _spki(key.public_key())
    return Es256Subkey(key, spki, thumbprint(spki))


def _ml_dsa_65(okm: bytearray, _kid: str) -> Subkey:
    key = mldsa.MLDSA65PrivateKey.from_seed_bytes(okm)
    spki = _spki(key.public_key())
    return MlDsa65Subkey(key, spki, thumbprint(spki))


_IMPORTS: dict[int, Callable[[bytearray, str], Subkey]] = {
    algorithms.ALGORITHM_ED25519: _ed25519,
    algorithms.ALGORITHM_ES256: _es256,
    algorithms.ALGORITHM_HS256: Hs256Subkey,
    algorithms.ALGORITHM_ML_DSA_65: _ml_dsa_65,
}


def from_okm(
    algorithm: algorithms.Algorithm.ValueType, okm: bytearray, context_digest: bytes, version: int
) -> Subkey:
    """The subkey of this keying material, 32 bytes, which is wiped before this returns or raises.

    Raises FailureError ALGORITHM_NOT_ALLOWED for an algorithm that is never derived.
    """
    try:
        importer = _IMPORTS.get(algorithm)
        if importer is None:
            raise FailureError(
                reasons.REASON_ALGORITHM_NOT_ALLOWED, "This algorithm signs in the token only."
            )
        return importer(okm, hs256_kid(context_digest, version))
    finally:
        wipe(okm)
