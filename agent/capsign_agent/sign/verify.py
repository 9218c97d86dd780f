"""Checks a signature with the public key alone. Importing this loads `cryptography`."""

from __future__ import annotations

from typing import Any

from capsign_wire.types.v1 import algorithms_pb2 as alg
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa, utils

from capsign_agent.sign.hashing import mu_hasher


def verifies(
    algorithm: alg.Algorithm.ValueType,
    spki: bytes,
    message: bytes,
    digest: bytes | None,
    signature: bytes,
) -> bool:
    """Whether it verifies. `digest` stands for the message where it is given. A key of another kind
    verifies nothing.
    """
    try:
        key: Any = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        return False
    try:
        _check(algorithm, key, spki, message, digest, signature)
    except InvalidSignature:
        return False
    return True


def _check(
    algorithm: alg.Algorithm.ValueType,
    key: Any,
    spki: bytes,
    message: bytes,
    digest: bytes | None,
    signature: bytes,
) -> None:
    data = message if digest is None else digest
    if algorithm == alg.ALGORITHM_ED25519 and isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, message)
    elif algorithm == alg.ALGORITHM_ML_DSA_65 and isinstance(key, mldsa.MLDSA65PublicKey):
        key.verify_mu(signature, mu_hasher(spki)(message) if digest is None else digest)
    elif algorithm in {alg.ALGORITHM_ES256, alg.ALGORITHM_ES384} and isinstance(
        key, ec.EllipticCurvePublicKey
    ):
        wanted: tuple[str, hashes.HashAlgorithm] = (
            ("secp256r1", hashes.SHA256())
            if algorithm == alg.ALGORITHM_ES256
            else ("secp384r1", hashes.SHA384())
        )
        if key.curve.name != wanted[0]:
            raise InvalidSignature
        hashing = wanted[1] if digest is None else utils.Prehashed(wanted[1])
        key.verify(signature, data, ec.ECDSA(hashing))
    elif algorithm in {alg.ALGORITHM_PS256, alg.ALGORITHM_RS256} and isinstance(
        key, rsa.RSAPublicKey
    ):
        sha256 = hashes.SHA256()
        scheme = (
            padding.PSS(padding.MGF1(sha256), 32)
            if algorithm == alg.ALGORITHM_PS256
            else padding.PKCS1v15()
        )
        key.verify(signature, data, scheme, sha256 if digest is None else utils.Prehashed(sha256))
    else:
        raise InvalidSignature
