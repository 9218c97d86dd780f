"""The kinds of keys, schemes and features that rows of the table are made of."""

from __future__ import annotations

from enum import Enum, auto


class Family(Enum):
    """Which kind of key pair an algorithm uses in a token."""

    P256 = "P-256"
    P384 = "P-384"
    RSA = "RSA-3072"
    ED25519 = "Ed25519"


class Scheme(Enum):
    """How a key pair signs in a token. ECDSA gives R ‖ S, RSA_PKCS takes a DigestInfo."""

    ECDSA = auto()
    EDDSA = auto()
    RSA_PKCS = auto()
    RSA_PSS = auto()


class Feature(Enum):
    """Optional features of a token."""

    HKDF_INSIDE = auto()
    """CKM_HKDF_DERIVE with a result that stays in the token: HS256 subkeys of custody class
    hsm-derived.
    """
    ED25519 = auto()
    """In-token Ed25519 keys."""
    RSA_PSS = auto()
    """In-token PS256."""
