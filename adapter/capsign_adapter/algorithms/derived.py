"""Makes subkeys, objects that sign, from keying material.

A subkey exists as an OpenSSL object (HS256, and Ed25519 by libsodium: as a byte array) until its
last user releases it, and is cleared then; of an ML-DSA key the 32-byte seed may stay behind in
freed memory.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Protocol

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from capsign_adapter.algorithms import sodium
from capsign_adapter.algorithms.det_keygen import p256_from_seed
from capsign_adapter.algorithms.expand import wipe
from capsign_adapter.algorithms.kid import thumbprint

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


def demand_length(data: bytes, length: int) -> None:
    if len(data) != length:
        raise FailureError(
            reasons.REASON_INPUT_MALFORMED,
            f"This algorithm signs exactly {length} bytes.",
            field="input",
        )


@dataclass(frozen=True, slots=True, repr=False)
class Ed25519Subkey:
    """RFC 8032, pure Ed25519: signs the message itself. 64 bytes, the same whichever library
    signs.
    """

    key: sodium.SodiumKey | ed25519.Ed25519PrivateKey
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
        demand_length(data, 32)
        return self.key.sign(data, _ECDSA)


@dataclass(frozen=True, slots=True, repr=False)
class MlDsa65Subkey:
    """FIPS 204 ML-DSA-65 over an external mu (section 6.2), hedged. 3309 bytes."""

    key: mldsa.MLDSA65PrivateKey
    spki: bytes
    kid: str

    def sign(self, data: bytes) -> bytes:
        demand_length(data, 64)
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


def _spki(
    public: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | mldsa.MLDSA65PublicKey,
) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def ed25519_subkey(okm: bytearray, _kid: str) -> Subkey:
    library = sodium.installed()
    return openssl_ed25519_subkey(okm) if library is None else sodium_ed25519_subkey(okm, library)


def sodium_ed25519_subkey(okm: bytearray, library: sodium.Sodium) -> Subkey:
    """An Ed25519 subkey with which libsodium signs."""
    key = sodium.SodiumKey(library, okm)
    spki = _spki(ed25519.Ed25519PublicKey.from_public_bytes(key.public()))
    return Ed25519Subkey(key, spki, thumbprint(spki))


def openssl_ed25519_subkey(okm: bytearray) -> Subkey:
    """An Ed25519 subkey with which OpenSSL signs."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(okm)
    spki = _spki(key.public_key())
    return Ed25519Subkey(key, spki, thumbprint(spki))


def es256_subkey(okm: bytearray, _kid: str) -> Subkey:
    key = p256_from_seed(okm)
    spki = _spki(key.public_key())
    return Es256Subkey(key, spki, thumbprint(spki))


def ml_dsa_65_subkey(okm: bytearray, _kid: str) -> Subkey:
    key = mldsa.MLDSA65PrivateKey.from_seed_bytes(okm)
    spki = _spki(key.public_key())
    return MlDsa65Subkey(key, spki, thumbprint(spki))
