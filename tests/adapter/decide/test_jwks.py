"""JWK Sets: which versions are in one, how a key is written, and what stands beside the keys."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from dataclasses import replace
from typing import Any

import pytest
from capsign_adapter.algorithms.kid import public_members, thumbprint
from capsign_adapter.decide import jwks
from capsign_adapter.decide.jwks import PublicKey, key_set, place_of, shown
from capsign_adapter.decide.policy_load import parse_policy
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.adapter_rig import POLICY, RULES
from support.rollouts import ACTIVE, DEACTIVATED, ED25519, ES256, NOW, PRE, version
from support.vectors import load

HERE = signing_pb2.ContextSuffix(role="issuer")
PUBLISHED = NOW - 60_000


def number(text: str) -> int:
    return int.from_bytes(octets(text))


def octets(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def spki(jwk: dict[str, Any]) -> bytes:
    """The SubjectPublicKeyInfo of a published JWK."""
    key: Any
    if jwk["kty"] == "EC":
        key = ec.EllipticCurvePublicNumbers(
            number(jwk["x"]), number(jwk["y"]), ec.SECP256R1()
        ).public_key()
    elif jwk["kty"] == "RSA":
        key = rsa.RSAPublicNumbers(number(jwk["e"]), number(jwk["n"])).public_key()
    else:
        key = ed25519.Ed25519PublicKey.from_public_bytes(octets(jwk["x"]))
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


PUBLIC = [case["jwk"] for case in (*load("rfc7517"), *load("rfc7638")) if "jwk" in case]


@pytest.mark.parametrize("jwk", PUBLIC, ids=lambda jwk: jwk["kty"])
def test_published_keys_are_written_as_the_rfcs_write_them(jwk):
    assert public_members(spki(jwk)) == jwk


def test_an_ml_dsa_key_has_kty_akp_and_its_bytes():
    """RFC 9964: `alg` is part of the key, and `pub` its encoding by FIPS 204."""
    public = mldsa.MLDSA65PrivateKey.from_seed_bytes(bytes(32)).public_key()
    members = public_members(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    assert (members["kty"], members["alg"]) == ("AKP", "ML-DSA-65")
    assert octets(members["pub"]) == public.public_bytes_raw()


def numbers(rows) -> list[int]:
    return [row.version for row in rows]


def test_those_that_sign_come_first_and_what_is_published_is_there_before_it_signs():
    published = replace(version(4, PRE), published_ms=PUBLISHED, activation_epoch=4)
    made = replace(version(5, PRE), published_ms=0)
    rows = [made, published, version(3), version(2, DEACTIVATED), version(1)]
    assert numbers(shown(rows, ES256)) == [3, 1, 4, 2]


@pytest.mark.parametrize("state", signing_pb2.KeyState.values())
def test_only_what_may_be_believed_or_will_be_is_shown(state):
    row = replace(version(1, state), published_ms=PUBLISHED)
    assert bool(shown([row], ES256)) == (state in {PRE, ACTIVE, DEACTIVATED})
    assert (state in jwks.STATES) == (state in {PRE, ACTIVE, DEACTIVATED})


def test_a_version_without_the_algorithm_is_not_shown():
    assert shown([replace(version(1), algorithms=(ED25519,))], ES256) == []


def test_the_oldest_are_left_out_and_never_what_signs():
    rows = [version(n, DEACTIVATED) for n in range(100, 1, -1)] + [version(1)]
    assert numbers(shown(rows, ES256)) == [1, *range(100, 100 - jwks.MOST_VERSIONS + 1, -1)]


def test_what_the_grant_pins_need_not_be_named():
    place = place_of(RULES, "demo", "orders-jwt", HERE)
    assert (place.protocol, place.role, place.protocol_version) == ("jwt", "issuer", "1")
    row = replace(version(2), activation_epoch=7)
    context = place.context(row, ES256)
    assert (context.epoch, context.purpose, context.algorithm) == (7, "jwt", "ES256")
    assert (context.tenant, context.key, context.transcript) == ("demo", "orders", b"")


@pytest.mark.parametrize(
    ("tenant", "grant", "suffix", "reason"),
    [
        ("demo", "nobodys", HERE, reasons.REASON_NOT_FOUND),
        ("other", "orders-jwt", HERE, reasons.REASON_NOT_FOUND),
        ("demo", "orders-jwt", signing_pb2.ContextSuffix(), reasons.REASON_CONTEXT_NOT_ALLOWED),
        (
            "demo",
            "orders-jwt",
            signing_pb2.ContextSuffix(role="issuer", transcript=bytes(32)),
            reasons.REASON_CONTEXT_NOT_ALLOWED,
        ),
    ],
    ids=["no-grant", "another-tenant", "no-role", "transcript"],
)
def test_a_place_that_is_none_is_refused(tenant, grant, suffix, reason):
    with pytest.raises(FailureError) as caught:
        place_of(RULES, tenant, grant, suffix)
    assert caught.value.reason == reason


def test_where_each_transcript_has_its_own_key_there_is_no_set():
    strict = parse_policy(POLICY.replace("transcript: allowed", "transcript: required").encode())
    with pytest.raises(FailureError, match="requires a transcript"):
        place_of(strict, "demo", "orders-jwt", HERE)


def published_set() -> jwks.KeySet:
    ec_key, rsa_key, okp_key = (spki(jwk) for jwk in PUBLIC)
    row = replace(version(2), activated_ms=NOW, activation_epoch=2, published_ms=PUBLISHED)
    coming = replace(version(3, PRE), published_ms=PUBLISHED, activation_epoch=3)
    old = replace(version(1, DEACTIVATED), activated_ms=1_000, activation_epoch=1)
    return key_set(
        [
            PublicKey(row, ED25519, thumbprint(okp_key), okp_key),
            PublicKey(coming, ES256, thumbprint(ec_key), ec_key),
            PublicKey(old, 4, thumbprint(rsa_key), rsa_key),
        ],
        41,
        60,
    )


def test_the_published_set_byte_for_byte():
    made, frozen = published_set(), load("jwks")
    assert made.body.decode() == frozen["body"]
    assert made.etag == frozen["etag"]


def test_a_set_says_how_new_it_is_and_when_to_ask_again():
    members = json.loads(published_set().body)
    assert (members["capsign_sequence"], members["capsign_refresh_hint"]) == (41, 60)
    signs, coming, old = members["keys"]
    assert coming["capsign_visible_since"] == PUBLISHED // 1000
    assert (signs["capsign_state"], signs["alg"], signs["nbf"]) == ("active", "EdDSA", NOW // 1000)
    assert (coming["capsign_state"], "nbf" in coming) == ("pre-activation", False)
    assert (old["capsign_state"], old["alg"], old["use"]) == ("deactivated", "PS256", "sig")


def test_another_sequence_is_another_tag():
    assert key_set([], 1, 60).etag != key_set([], 2, 60).etag


@pytest.mark.parametrize(
    ("propagation_ms", "seconds"),
    [(0, 0), (2_999, 0), (3_000, 1), (6_000, 2), (179_000, 59), (180_000, 60), (900_000, 60)],
)
def test_a_set_is_fetched_three_times_before_a_new_key_signs(propagation_ms, seconds):
    """Whoever keeps it to the letter knows every key before the first signature under it."""
    plan = replace(RULES.rollouts, propagation_ms=propagation_ms)
    assert jwks.kept_s(replace(RULES, rollouts=plan)) == seconds
