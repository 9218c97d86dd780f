"""Writes context.json: from context fields to public keys, computed from docs/formats.md alone.

Nothing of capsign is imported: this is the second implementation that the vectors are for. Run it
after a change of the formats (`python tests/vectors/make_context_vectors.py`); a test compares its
output with the file and with the production code.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa

FILE = Path(__file__).with_name("context.json")
ROOT = hashlib.sha256(b"capsign context vectors, a root that protects nothing").digest()
TRANSCRIPT = hashlib.sha256(b"capsign context vectors, a transcript").digest()
VERSION = 7
P256_ORDER = 2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF

CASES = [
    ("plain", ("acme", "billing", 1, "jwt", "jwt", "issuer", "1"), b""),
    ("transcript", ("acme", "billing", 1, "jwt", "jwt", "issuer", "1"), TRANSCRIPT),
    ("later epoch", ("acme", "billing", 2**32 + 5, "jwt", "jwt", "issuer", "1"), b""),
    ("boundary moved", ("acmeb", "illing", 1, "jwt", "jwt", "issuer", "1"), b""),
    ("other purpose", ("acme", "billing", 1, "webhook", "jwt", "issuer", "1"), b""),
    (
        "longest names",
        ("t" * 63, "k" * 63, 2**64 - 1, "p" * 64, "q" * 64, "r" * 64, "v" * 32),
        TRANSCRIPT,
    ),
]


def sized(count: int, value: bytes) -> bytes:
    return len(value).to_bytes(count, "big") + value


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def p256(seed: bytes) -> ec.EllipticCurvePrivateKey:
    key, value, tail = b"\x00" * 32, b"\x01" * 32, seed + b"det ECDSA key gen P-256"
    key = hmac_sha256(key, value + b"\x00" + tail)
    value = hmac_sha256(key, value)
    key = hmac_sha256(key, value + b"\x01" + tail)
    value = hmac_sha256(key, hmac_sha256(key, value))
    scalar = int.from_bytes(value, "big")
    assert 0 < scalar < P256_ORDER, "choose another case: this one needs the second draw"
    return ec.derive_private_key(scalar, ec.SECP256R1())


def base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def key_of(algorithm: str, okm: bytes, digest: bytes) -> dict[str, str]:
    """The SubjectPublicKeyInfo, if there is one, and the key id."""
    if algorithm == "HS256":
        name = b"capsign1 hs256 kid" + digest + VERSION.to_bytes(4, "big")
        tag = hmac_sha256(okm, b"capsign")
        return {
            "spki": "",
            "kid": base64url(hashlib.sha256(name).digest()),
            "hmac_of_capsign": tag.hex(),
        }
    if algorithm == "Ed25519":
        public = ed25519.Ed25519PrivateKey.from_private_bytes(okm).public_key()
        jwk = {"crv": "Ed25519", "kty": "OKP", "x": base64url(public.public_bytes_raw())}
    elif algorithm == "ES256":
        public = p256(okm).public_key()
        point = public.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        jwk = {"crv": "P-256", "kty": "EC", "x": base64url(point[1:33]), "y": base64url(point[33:])}
    else:
        public = mldsa.MLDSA65PrivateKey.from_seed_bytes(okm).public_key()
        jwk = {"alg": "ML-DSA-65", "kty": "AKP", "pub": base64url(public.public_bytes_raw())}
    canonical = json.dumps(jwk, separators=(",", ":"))  # members are in order above
    spki = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {"spki": spki.hex(), "kid": base64url(hashlib.sha256(canonical.encode()).digest())}


def vector(
    case: str, fields: tuple[str, str, int, str, str, str, str], algorithm: str, transcript: bytes
) -> dict[str, object]:
    tenant, key, epoch, purpose, protocol, role, protocol_version = fields
    parts = [
        tenant.encode(),
        key.encode(),
        epoch.to_bytes(8, "big"),
        purpose.encode(),
        algorithm.encode(),
    ]
    parts += [protocol.encode(), role.encode(), protocol_version.encode(), transcript]
    encoding = b"".join(sized(2, part) for part in parts)
    digest = hashlib.sha256(encoding).digest()
    info = (32).to_bytes(2, "big") + sized(1, b"capsign1 " + purpose.encode()) + sized(1, digest)
    okm = hmac_sha256(ROOT, info + b"\x01")
    context = {
        "tenant": tenant,
        "key": key,
        "epoch": str(epoch),
        "purpose": purpose,
        "algorithm": algorithm,
        "protocol": protocol,
        "role": role,
        "protocol_version": protocol_version,
        "transcript": transcript.hex(),
    }
    derived = {
        "encoding": encoding.hex(),
        "digest": digest.hex(),
        "info": info.hex(),
        "okm": okm.hex(),
    }
    return {"case": case, "context": context, **derived, **key_of(algorithm, okm, digest)}


def make() -> str:
    vectors = [
        vector(case, fields, algorithm, transcript)
        for case, fields, transcript in CASES
        for algorithm in ("Ed25519", "ES256", "HS256", "ML-DSA-65")
    ]
    return (
        json.dumps({"root": ROOT.hex(), "key_version": VERSION, "vectors": vectors}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    FILE.write_text(make())
