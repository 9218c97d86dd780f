"""Subkey attestations: what they state, and every way in which one must not hold."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Any

import pytest
from capsign_adapter.algorithms.kid import thumbprint
from capsign_adapter.decide.context import Context
from capsign_adapter.keys.attestation import (
    MAX_ENVELOPE_LEN,
    PAYLOAD_TYPE,
    attest,
    canonical,
    pre_authentication_encoding,
    verify_attestation,
)
from capsign_adapter.keys.subkeys import from_okm
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as pb
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from hypothesis import given
from hypothesis import strategies as st
from support.fake_token import FakeToken

LABEL = "capsign/acme/billing/1"
CONTEXT = Context("acme", "billing", 1, "jwt", "ES256", "jwt", "issuer", "1", bytes(range(32)))
TOKEN = FakeToken()
TOKEN.generate_key_pair(f"{LABEL}/attest", pb.ALGORITHM_ES256)
SPKI = TOKEN.public_key(f"{LABEL}/attest")


def attested(context=CONTEXT, algorithm=pb.ALGORITHM_ES256, **changes):
    subkey = from_okm(algorithm, bytearray(b"k" * 32), context.digest(), 1)
    fields = {"kid": subkey.kid, "spki": subkey.spki, **changes}
    return attest(
        TOKEN, LABEL, context, fields["kid"], fields["spki"], 1, pb.CUSTODY_CLASS_ADAPTER_MEMORY
    )


def resign(payload, payload_type=PAYLOAD_TYPE):
    digest = hashlib.sha256(pre_authentication_encoding(payload_type, payload)).digest()
    signature = TOKEN.sign(f"{LABEL}/attest", pb.ALGORITHM_ES256, digest)
    sig = {"keyid": "", "sig": b64encode(signature).decode()}
    return canonical(
        {"payload": b64encode(payload).decode(), "payloadType": payload_type, "signatures": [sig]}
    )


def refused(envelope, spki=SPKI):
    with pytest.raises(FailureError, match="SIGNATURE_INVALID"):
        verify_attestation(envelope, spki)


def test_the_pre_authentication_encoding_is_that_of_the_dsse_specification():
    # The specification's own example.
    assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("Ed25519", pb.ALGORITHM_ED25519),
        ("ES256", pb.ALGORITHM_ES256),
        ("ML-DSA-65", pb.ALGORITHM_ML_DSA_65),
    ],
)
def test_an_attestation_states_context_and_key(name, number):
    context = replace(CONTEXT, algorithm=name, epoch=2**64 - 1)
    envelope = attested(context, number)
    stated = verify_attestation(envelope, SPKI)
    subkey = from_okm(number, bytearray(b"k" * 32), b"", 1)
    assert (stated.context, stated.kid, stated.spki) == (context, subkey.kid, subkey.spki)
    assert (stated.version, stated.custody) == (1, "adapter-memory")
    assert len(envelope) <= MAX_ENVELOPE_LEN


def test_the_longest_context_with_the_largest_key_fits_the_field_it_travels_in():
    long = Context(
        "t" * 255,
        "k" * 255,
        2**64 - 1,
        "p" * 246,
        "ML-DSA-65",
        "q" * 255,
        "r" * 255,
        "v" * 255,
        bytes(32),
    )
    assert len(attested(long, pb.ALGORITHM_ML_DSA_65)) <= MAX_ENVELOPE_LEN


def test_a_verifier_needs_only_dsse_and_the_attestation_key():
    # Written from the DSSE specification, with nothing of ours but the envelope.
    envelope = json.loads(attested())
    payload, kind = b64decode(envelope["payload"]), envelope["payloadType"]
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    (signature,) = envelope["signatures"]
    key: Any = load_der_public_key(SPKI)
    key.verify(b64decode(signature["sig"]), signed, ec.ECDSA(hashes.SHA256()))
    assert signature["keyid"] == thumbprint(SPKI)
    assert json.loads(payload)["context"]["tenant"] == "acme"
    assert payload == canonical(json.loads(payload))


def test_an_envelope_above_its_bound_is_refused_even_if_it_would_verify():
    envelope = attested()
    verify_attestation(envelope + b" " * (MAX_ENVELOPE_LEN - len(envelope)), SPKI)
    refused(envelope + b" " * (MAX_ENVELOPE_LEN + 1 - len(envelope)))


def test_a_good_signature_on_another_curve_is_refused():
    payload = b64decode(json.loads(attested())["payload"])
    other = ec.generate_private_key(ec.SECP384R1())
    signature = other.sign(
        pre_authentication_encoding(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256())
    )
    sig = {"keyid": "", "sig": b64encode(signature).decode()}
    envelope = canonical(
        {"payload": b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": [sig]}
    )
    refused(
        envelope, other.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def test_another_attestation_key_is_refused():
    TOKEN.generate_key_pair("other", pb.ALGORITHM_ES256)
    refused(attested(), TOKEN.public_key("other"))
    TOKEN.destroy("other")


def test_an_attestation_key_that_is_not_p256_is_refused():
    TOKEN.generate_key_pair("big", pb.ALGORITHM_ES384)
    TOKEN.generate_key_pair("ed", pb.ALGORITHM_ED25519)
    for label in ("big", "ed"):
        refused(attested(), TOKEN.public_key(label))
        TOKEN.destroy(label)


@pytest.mark.parametrize(
    "name",
    [
        "tenant",
        "key",
        "purpose",
        "algorithm",
        "protocol",
        "role",
        "protocol_version",
        "epoch",
        "transcript",
    ],
)
def test_a_changed_context_is_refused_signed_anew_or_not(name):
    envelope = json.loads(attested())
    payload = json.loads(b64decode(envelope["payload"]))
    payload["context"][name] = {"epoch": "2", "transcript": "00" * 32}.get(name, "other")
    forged = canonical(payload)
    refused(canonical({**envelope, "payload": b64encode(forged).decode()}))
    # Even the attestation key cannot make a statement that contradicts itself pass.
    refused(resign(forged))


def test_a_key_id_of_another_key_is_refused():
    other = from_okm(pb.ALGORITHM_ES256, bytearray(b"o" * 32), b"", 1)
    refused(attested(kid=other.kid))
    refused(attested(spki=other.spki))


def test_another_payload_type_is_refused():
    payload = b64decode(json.loads(attested())["payload"])
    refused(resign(payload, "application/vnd.in-toto+json"))
    envelope = json.loads(attested())
    refused(canonical({**envelope, "payloadType": "application/vnd.in-toto+json"}))


def test_none_or_several_signatures_are_refused():
    envelope = json.loads(attested())
    refused(canonical({**envelope, "signatures": []}))
    refused(canonical({**envelope, "signatures": envelope["signatures"] * 2}))


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"1",
        b"\xff",
        b'{"payloadType":1}',
        b"[" * 100_000,
        b" " * (MAX_ENVELOPE_LEN + 1),
        b"NaN",
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_not_an_envelope_is_refused(envelope):
    refused(envelope)


@pytest.mark.parametrize(
    "payload", [b"", b"null", b"{}", b'{"context":[]}', b'{"context":{"epoch":[]}}', b"[" * 5000]
)
def test_a_signed_payload_that_is_not_a_statement_is_refused(payload):
    refused(resign(payload))


@given(st.integers(0), st.integers(1, 255))
def test_no_single_changed_byte_of_payload_or_signature_passes(at, flip):
    envelope = json.loads(attested())
    for where in ("payload", "signature"):
        raw = b64decode(
            envelope["payload"] if where == "payload" else envelope["signatures"][0]["sig"]
        )
        index = at % len(raw)
        changed = b64encode(raw[:index] + bytes((raw[index] ^ flip,)) + raw[index + 1 :]).decode()
        sigs = envelope["signatures"] if where == "payload" else [{"keyid": "", "sig": changed}]
        refused(
            canonical(
                {
                    **envelope,
                    "signatures": sigs,
                    "payload": changed if where == "payload" else envelope["payload"],
                }
            )
        )


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_in_our_terms(envelope):
    refused(envelope)
    refused(attested(), envelope)
