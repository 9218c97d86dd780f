"""Public keys of a JWK Set (RFC 7517), and whether a signature verifies under one. Importing this
loads `cryptography`, which `capsign[verify]` brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import cryptography.exceptions
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa, utils

from capsign.errors import InvalidSignature
from capsign.jose import octets

MIN_RSA_BITS = 2048
"""Shortest RSA key that is taken, bits."""

SHA256 = hashes.SHA256()

Verify = Callable[[bytes, bytes], None]
"""Takes the signature, as JOSE writes it, and the message. Raises what `cryptography` raises."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key of a set. `algorithm` is its JOSE name; `state` and `version` say what the adapter says
    of that version of the key.
    """

    kid: str
    algorithm: str
    state: str
    version: int
    _verify: Verify = field(repr=False, compare=False)

    def check(self, signature: bytes, message: bytes) -> None:
        """Verify a signature as JOSE writes it: R || S for ECDSA. Raises InvalidSignature."""
        try:
            self._verify(signature, message)
        except (cryptography.exceptions.InvalidSignature, ValueError):
            detail = "It does not verify under the key that it names."
            raise InvalidSignature("SIGNATURE_INVALID", detail, field="signature") from None


def keys_of(members: Any) -> dict[str, VerificationKey]:
    """The keys of a set by `kid`. What this cannot use, or does not know, is left out (RFC 7517
    section 5). Raises ValueError for what is no set.
    """
    if not isinstance(members, dict) or not isinstance(members.get("keys"), list):
        raise ValueError("this is no JWK Set")
    found: dict[str, VerificationKey] = {}
    for jwk in members["keys"]:
        try:
            key = _key(jwk)
        except (KeyError, TypeError, ValueError, cryptography.exceptions.UnsupportedAlgorithm):
            continue
        found.setdefault(key.kid, key)
    return found


def _key(jwk: Any) -> VerificationKey:
    if not isinstance(jwk, dict):
        raise TypeError("no JWK")
    if jwk.get("use", "sig") != "sig" or not isinstance(jwk["kid"], str):
        raise ValueError("not for signatures, or without a name")
    return VerificationKey(
        kid=jwk["kid"],
        algorithm=jwk["alg"],
        state=str(jwk.get("capsign_state", "")),
        version=int(jwk.get("capsign_version", 0)),
        _verify=KINDS[jwk["alg"]](jwk),
    )


def _ed25519(jwk: Mapping[str, Any]) -> Verify:
    _demand(jwk, kty="OKP", crv="Ed25519")
    return ed25519.Ed25519PublicKey.from_public_bytes(octets(jwk["x"])).verify


def _ml_dsa_65(jwk: Mapping[str, Any]) -> Verify:
    _demand(jwk, kty="AKP", alg="ML-DSA-65")
    public = mldsa.MLDSA65PublicKey.from_public_bytes(octets(jwk["pub"]))
    return lambda signature, message: public.verify(signature, message)


def _ecdsa(
    curve: ec.EllipticCurve, name: str, hashed: hashes.HashAlgorithm
) -> Callable[[Mapping[str, Any]], Verify]:
    size = (curve.key_size + 7) // 8

    def made(jwk: Mapping[str, Any]) -> Verify:
        _demand(jwk, kty="EC", crv=name)
        x, y = octets(jwk["x"]), octets(jwk["y"])
        if (len(x), len(y)) != (size, size):
            raise ValueError("coordinates have the length of the field")
        public = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)

        def verify(signature: bytes, message: bytes) -> None:
            if len(signature) != 2 * size:
                raise cryptography.exceptions.InvalidSignature
            r, s = (int.from_bytes(part) for part in (signature[:size], signature[size:]))
            public.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashed))

        return verify

    return made


def _rsa(scheme: padding.AsymmetricPadding) -> Callable[[Mapping[str, Any]], Verify]:
    def made(jwk: Mapping[str, Any]) -> Verify:
        _demand(jwk, kty="RSA")
        e, n = (int.from_bytes(octets(jwk[name])) for name in ("e", "n"))
        if n.bit_length() < MIN_RSA_BITS:
            raise ValueError("an RSA key that is too short")
        public = rsa.RSAPublicNumbers(e, n).public_key()
        return lambda signature, message: public.verify(signature, message, scheme, SHA256)

    return made


def _demand(jwk: Mapping[str, Any], **members: str) -> None:
    if any(jwk.get(name) != value for name, value in members.items()):
        raise ValueError("a key of another kind than its algorithm")


KINDS: Mapping[str, Callable[[Mapping[str, Any]], Verify]] = MappingProxyType(
    {
        "EdDSA": _ed25519,
        "ES256": _ecdsa(ec.SECP256R1(), "P-256", SHA256),
        "ES384": _ecdsa(ec.SECP384R1(), "P-384", hashes.SHA384()),
        "PS256": _rsa(padding.PSS(padding.MGF1(SHA256), 32)),
        "RS256": _rsa(padding.PKCS1v15()),
        "ML-DSA-65": _ml_dsa_65,
    }
)
"""How a key of each algorithm is read, by JOSE name."""
