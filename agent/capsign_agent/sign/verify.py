"""Verifies a signature with the public key alone. Importing this loads `cryptography`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from capsign_wire.types.v1 import algorithms_pb2 as alg
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa, utils

from capsign_agent.sign.hashing import mu_hasher


class Signed(NamedTuple):
    """What was signed: the message, or its `digest` if that is given."""

    message: bytes
    digest: bytes | None
    signature: bytes


Check = Callable[[Any, bytes, Signed], None]
"""Takes the public key, its SubjectPublicKeyInfo, the signature and what was signed. Raises
InvalidSignature, also for a key of another kind.
"""


def verifies(algorithm: int, spki: bytes, signed: Signed) -> bool:
    """Whether the signature verifies under this key. Under a key of another kind none does."""
    check = CHECKS.get(algorithm)
    if check is None:
        return False
    try:
        key: Any = serialization.load_der_public_key(spki)
        check(key, spki, signed)
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def _ed25519(key: Any, _spki: bytes, signed: Signed) -> None:
    _demand(isinstance(key, ed25519.Ed25519PublicKey))
    key.verify(signed.signature, signed.message)


def _ml_dsa_65(key: Any, spki: bytes, signed: Signed) -> None:
    _demand(isinstance(key, mldsa.MLDSA65PublicKey))
    mu = mu_hasher(spki)(signed.message) if signed.digest is None else signed.digest
    key.verify_mu(signed.signature, mu)


def _ecdsa(curve: ec.EllipticCurve, hashed: hashes.HashAlgorithm) -> Check:
    def check(key: Any, _spki: bytes, signed: Signed) -> None:
        _demand(isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == curve.name)
        data, how = _prehashed(signed, hashed)
        key.verify(signed.signature, data, ec.ECDSA(how))

    return check


def _rsa(scheme: padding.AsymmetricPadding) -> Check:
    def check(key: Any, _spki: bytes, signed: Signed) -> None:
        _demand(isinstance(key, rsa.RSAPublicKey))
        data, how = _prehashed(signed, hashes.SHA256())
        key.verify(signed.signature, data, scheme, how)

    return check


def _prehashed(
    signed: Signed, hashed: hashes.HashAlgorithm
) -> tuple[bytes, hashes.HashAlgorithm | utils.Prehashed]:
    if signed.digest is None:
        return signed.message, hashed
    return signed.digest, utils.Prehashed(hashed)


def _demand(fits: bool) -> None:
    if not fits:
        raise InvalidSignature


CHECKS: Mapping[int, Check] = MappingProxyType(
    {
        alg.ALGORITHM_ED25519: _ed25519,
        alg.ALGORITHM_ES256: _ecdsa(ec.SECP256R1(), hashes.SHA256()),
        alg.ALGORITHM_ES384: _ecdsa(ec.SECP384R1(), hashes.SHA384()),
        alg.ALGORITHM_PS256: _rsa(padding.PSS(padding.MGF1(hashes.SHA256()), 32)),
        alg.ALGORITHM_RS256: _rsa(padding.PKCS1v15()),
        alg.ALGORITHM_ML_DSA_65: _ml_dsa_65,
    }
)
"""How each algorithm with a public key is verified, by its number."""
