"""The public key under which a bundle's signature is to verify, from whoever verifies: a PEM file,
a JWK Set, or the id (RFC 7638 thumbprint) of the key that the bundle has.

The bundle's own word is not enough: to an ECDSA signature and another message a key can be computed
under which it verifies.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsign_cli.failures import REFUSED, USAGE, CliError

if TYPE_CHECKING:
    from capsign.jwk import VerificationKey
    from capsign_evidence.bundle import BundledSignature

MAX_KEY_FILE = 4 * 1024 * 1024
"""Longest file of keys that is read, bytes."""

_CURVES = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48)}


Trusted = tuple["VerificationKey", str]
"""A key, and where it is from."""


def trusted_keys(
    signature: BundledSignature, files: Sequence[Path], kids: Collection[str]
) -> list[Trusted]:
    """The keys that may have made this signature: of each file, and the bundle's own if its id is
    one of `kids`. Raises CliError if nothing was given to trust, or if it has no key for this
    signature.
    """
    found: list[Trusted] = []
    refusal: CliError | None = None
    for file in files:
        try:
            found.append((_in_file(file, signature), str(file)))
        except CliError as error:
            if error.told.exit_code == USAGE:
                raise
            refusal = refusal or error
    if kids or not files:
        try:
            found.append((_in_bundle(signature, kids), "the bundle, by its id"))
        except CliError as error:
            refusal = refusal or error
    if not found:
        assert refusal is not None
        raise refusal
    return found


_KEYS = "Give a PEM file with one public key, or a JWK Set."


def _in_file(file: Path, signature: BundledSignature) -> VerificationKey:
    with file.open("rb") as opened:
        data = opened.read(MAX_KEY_FILE + 1)
    if len(data) > MAX_KEY_FILE:
        raise CliError(USAGE, "KEY_FILE", f"{file} is larger than any file of keys.", _KEYS)
    if data.lstrip().startswith(b"{"):
        return _of_set(data, signature, file)
    return _of_pem(data, signature.algorithm, str(file))


def _in_bundle(signature: BundledSignature, kids: Collection[str]) -> VerificationKey:
    if not signature.public_key:
        raise CliError(
            USAGE,
            "KEY_MISSING",
            f"The bundle has no public key for its {signature.algorithm} signature.",
            "Give --key with a PEM file or a JWK Set.",
        )
    key = _of_pem(signature.public_key.encode(), signature.algorithm, "the bundle")
    if not kids:
        raise CliError(
            USAGE,
            "KEY_MISSING",
            f"Whose signature should it be? The bundle has a key of id {key.kid}, and a forged one "
            f"would have a key too.",
            "Give --key with a PEM file or a JWK Set, or --kid with the id that you expect.",
        )
    if key.kid not in kids:
        raise CliError(
            REFUSED,
            "WRONG_KEY",
            f"The {signature.algorithm} key in the bundle has the id {key.kid}, which was not "
            f"given.",
            "Do not trust the bundle unless this key is known to you too: then give --kid again.",
        )
    return key


def _of_set(data: bytes, signature: BundledSignature, file: Path) -> VerificationKey:
    from capsign.jwk import keys_of

    try:
        found = keys_of(json.loads(data)).get(signature.kid)
    except (ValueError, RecursionError):
        raise CliError(USAGE, "KEY_FILE", f"{file} is no JWK Set.", _KEYS) from None
    if found is None or found.algorithm not in {signature.algorithm, _jose(signature.algorithm)}:
        raise CliError(
            REFUSED,
            "WRONG_KEY",
            f"{file} has no key of the id that the bundle names.",
            "Fetch the set of the context in which it was signed, or do not trust the bundle.",
        )
    return found


def _of_pem(pem: bytes, algorithm: str, where: str) -> VerificationKey:
    from capsign.jwk import KINDS, VerificationKey
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    name = _jose(algorithm)
    try:
        members = _members(load_pem_public_key(pem))
        kind = KINDS[name]({**members, "alg": name})
    except (KeyError, ValueError, UnsupportedAlgorithm):
        raise CliError(
            REFUSED,
            "WRONG_KEY",
            f"{where} has no public key of {algorithm}.",
            "Give the key that you trust for this signature; it may be one of another algorithm.",
        ) from None
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    return VerificationKey(_url(hashlib.sha256(canonical).digest()), name, "", 0, kind)


def _jose(algorithm: str) -> str:
    """The `alg` of a JWK: Ed25519 is EdDSA there (RFC 8037)."""
    return "EdDSA" if algorithm == "Ed25519" else algorithm


def _members(key: Any) -> dict[str, str]:
    """The members of its JWK that a thumbprint covers (docs/formats.md, "Key id"). Raises
    ValueError.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa

    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        (name, size), point = _CURVES[key.curve.name], key.public_numbers()
        x, y = (_url(value.to_bytes(size, "big")) for value in (point.x, point.y))
        return {"crv": name, "kty": "EC", "x": x, "y": y}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        e, n = (_url(v.to_bytes((v.bit_length() + 7) // 8, "big")) for v in (numbers.e, numbers.n))
        return {"e": e, "kty": "RSA", "n": n}
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"crv": "Ed25519", "kty": "OKP", "x": _url(key.public_bytes_raw())}
    if isinstance(key, mldsa.MLDSA65PublicKey):
        return {"alg": "ML-DSA-65", "kty": "AKP", "pub": _url(key.public_bytes_raw())}
    raise ValueError("a key of no algorithm here")


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
