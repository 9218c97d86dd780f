"""Subkey attestations: a signature made in the token states which public key was derived for which
context.

DSSE (v1.0.2 of the secure-systems-lab specification) around a canonical JSON payload.
docs/formats.md gives both, byte for byte.
"""

from __future__ import annotations

import binascii
import hashlib
import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

from capsign_wire.algorithms import CUSTODY_NAMES
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from capsign_adapter.algorithms.kid import thumbprint
from capsign_adapter.decide.context import Context
from capsign_adapter.keys import labels
from capsign_adapter.token.interface import Token

PAYLOAD_TYPE = "application/vnd.capsign.subkey.v1+json"
MAX_ENVELOPE_LEN = 16384


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Returns the PAE of DSSE, the bytes that are signed. Lengths are in bytes, in decimal."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def canonical(value: dict[str, Any]) -> bytes:
    """Returns canonical JSON: sorted keys, no white space, ASCII only."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def statement(
    context: Context,
    kid: str,
    spki: bytes,
    version: int,
    custody: algorithms.CustodyClass.ValueType,
) -> bytes:
    """Returns the payload. The epoch is a decimal string, because JSON numbers stop being exact
    above 2**53.
    """
    return canonical(
        {
            "context": {
                "algorithm": context.algorithm,
                "epoch": str(context.epoch),
                "key": context.key,
                "protocol": context.protocol,
                "protocol_version": context.protocol_version,
                "purpose": context.purpose,
                "role": context.role,
                "tenant": context.tenant,
                "transcript": context.transcript.hex(),
            },
            "context_digest": context.digest().hex(),
            "custody": CUSTODY_NAMES[custody],
            "key_version": version,
            "kid": kid,
            "spki": b64encode(spki).decode(),
        }
    )


def attest(
    token: Token,
    version_label: str,
    context: Context,
    kid: str,
    spki: bytes,
    version: int,
    custody: algorithms.CustodyClass.ValueType,
) -> bytes:
    """Returns the JSON envelope, signed by the attestation key of the version with this label. Two
    token calls. Raises TokenError.
    """
    label = labels.attestation(version_label)
    payload = statement(context, kid, spki, version, custody)
    digest = hashlib.sha256(pre_authentication_encoding(PAYLOAD_TYPE, payload)).digest()
    signature = token.sign(label, algorithms.ALGORITHM_ES256, digest)
    return canonical(
        {
            "payload": b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": thumbprint(token.public_key(label)), "sig": b64encode(signature).decode()}
            ],
        }
    )


@dataclass(frozen=True, slots=True)
class AttestedSubkey:
    """The content of a verified attestation."""

    context: Context
    kid: str
    spki: bytes
    version: int
    custody: str


def verify_attestation(envelope: bytes, attest_spki: bytes) -> AttestedSubkey:
    """Returns the content of the envelope, if the attestation key with this SubjectPublicKeyInfo
    signed it.

    The signature is checked before the payload is read. Then the payload must be consistent: digest
    and context, key id and key. Raises FailureError SIGNATURE_INVALID, never anything else.
    """
    try:
        payload = _verified_payload(envelope, attest_spki)
        stated = json.loads(payload)
        fields = stated["context"]
        texts = ("tenant", "key", "purpose", "algorithm", "protocol", "role", "protocol_version")
        context = Context(
            epoch=int(fields["epoch"]),
            transcript=bytes.fromhex(fields["transcript"]),
            **{name: fields[name] for name in texts},
        )
        subkey = AttestedSubkey(
            context,
            stated["kid"],
            b64decode(stated["spki"]),
            stated["key_version"],
            stated["custody"],
        )
        if stated["context_digest"] != context.digest().hex() or subkey.kid != thumbprint(
            subkey.spki
        ):
            raise ValueError("the payload contradicts itself")
    except (
        InvalidSignature,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        binascii.Error,
    ) as error:
        detail = "The subkey attestation does not hold under this attestation key."
        raise FailureError(reasons.REASON_SIGNATURE_INVALID, detail) from error
    return subkey


def _verified_payload(envelope: bytes, attest_spki: bytes) -> bytes:
    if len(envelope) > MAX_ENVELOPE_LEN:
        raise ValueError("an envelope is at most 16 KiB")
    parsed = json.loads(envelope)
    if parsed["payloadType"] != PAYLOAD_TYPE or len(parsed["signatures"]) != 1:
        raise ValueError("not one signature over a subkey statement")
    key = load_der_public_key(attest_spki)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("attestation keys are P-256")
    payload = b64decode(parsed["payload"], validate=True)
    signature = b64decode(parsed["signatures"][0]["sig"], validate=True)
    key.verify(
        signature, pre_authentication_encoding(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256())
    )
    return payload
