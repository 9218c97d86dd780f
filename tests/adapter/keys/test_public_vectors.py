"""Vectors that others published, through the code that production uses."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, urlsafe_b64decode
from typing import Any

import pytest
from capsign_adapter.algorithms.det_keygen import MIN_SEED_LEN, p256_from_seed
from capsign_adapter.algorithms.expand import MAX_LENGTH, expand, wipe
from capsign_adapter.algorithms.kid import thumbprint
from capsign_adapter.keys.subkeys import from_okm
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)
from support.instances import key_in
from support.vectors import load


def prf(key):
    return lambda data: hmac.digest(key, data, "sha256")


@pytest.mark.parametrize("case", load("rfc5869"), ids=lambda case: case["case"])
def test_hkdf_expand_gives_the_okm_of_rfc_5869(case):
    okm = expand(prf(bytes.fromhex(case["prk"])), bytes.fromhex(case["info"]), case["length"])
    assert okm.hex() == case["okm"]
    assert isinstance(okm, bytearray)


def test_hkdf_expand_calls_the_token_once_for_each_32_bytes():
    calls = []

    def counting(data):
        calls.append(data)
        return hmac.digest(b"k" * 32, data, "sha256")

    assert expand(counting, b"info", 32) == hmac.digest(b"k" * 32, b"info\x01", "sha256")
    assert len(calls) == 1
    assert len(expand(counting, b"info", 33)) == 33
    assert len(calls) == 3
    assert len(expand(counting, b"info", MAX_LENGTH)) == MAX_LENGTH
    assert calls[-1][-1] == 255


@pytest.mark.parametrize("length", [0, -1, MAX_LENGTH + 1])
def test_hkdf_expand_refuses_a_length_that_rfc_5869_does_not_have(length):
    with pytest.raises(ValueError, match="8160"):
        expand(prf(b"k" * 32), b"", length)


def test_hkdf_expand_refuses_a_prf_that_gives_too_little():
    with pytest.raises(ValueError, match="32 bytes"):
        expand(lambda data: b"short", b"", 32)


def test_wipe_leaves_zeros_in_place():
    secret = bytearray(b"secret")
    alias = memoryview(secret)
    wipe(secret)
    assert bytes(alias) == bytes(6)


@pytest.mark.parametrize("case", load("det_keygen"), ids=lambda case: case["seed"])
def test_p256_keys_are_those_of_c2sp_det_keygen(case):
    key = p256_from_seed(b64decode(case["seed"]))
    published = load_der_private_key(b64decode(case["private_key_pkcs8"]), None)
    assert key.private_numbers() == published.private_numbers()


def test_det_keygen_wipes_what_it_built_around_the_seed():
    wiped = []

    def watch(secret):
        assert b"s" * 32 in secret
        wipe(secret)
        wiped.append(secret)

    p256_from_seed(bytearray(b"s" * 32), watch)
    assert len(wiped) == 2
    assert not any(any(secret) for secret in wiped)


def test_det_keygen_refuses_a_short_seed():
    with pytest.raises(ValueError, match="16 bytes"):
        p256_from_seed(bytes(MIN_SEED_LEN - 1))


@pytest.mark.parametrize("case", load("rfc4231"), ids=lambda case: case["case"])
def test_hs256_gives_the_tags_of_rfc_4231(case):
    subkey = from_okm(algorithms.ALGORITHM_HS256, bytearray.fromhex(case["key"]), bytes(32), 1)
    assert subkey.sign(bytes.fromhex(case["msg"])).hex() == case["md"]
    assert subkey.spki == b""


@pytest.mark.parametrize("case", load("rfc8032"), ids=lambda case: case["case"])
def test_ed25519_gives_the_signatures_of_rfc_8032(case):
    subkey = from_okm(algorithms.ALGORITHM_ED25519, bytearray.fromhex(case["seed"]), bytes(32), 1)
    assert load_der_public_key(subkey.spki).public_bytes_raw().hex() == case["public"]
    assert subkey.sign(bytes.fromhex(case["message"])).hex() == case["signature"]


def external_mu(public, message, context):
    """FIPS 204 section 6.2: mu = SHAKE256(SHAKE256(pk, 64) ‖ 0 ‖ len(ctx) ‖ ctx ‖ M, 64)."""
    tr = hashlib.shake_256(public).digest(64)
    return hashlib.shake_256(tr + bytes((0, len(context))) + context + message).digest(64)


@pytest.mark.parametrize("case", load("ml_dsa_65")["signatures"], ids=lambda case: case["count"])
def test_ml_dsa_65_makes_the_published_keys_and_signatures_that_verify(case):
    subkey = from_okm(algorithms.ALGORITHM_ML_DSA_65, bytearray.fromhex(case["seed"]), bytes(32), 1)
    public: Any = load_der_public_key(subkey.spki)
    message, context, published = (
        bytes.fromhex(case[name]) for name in ("message", "context", "signature")
    )
    assert public.public_bytes_raw().hex() == case["public"]
    public.verify(published, message, context)
    mu = external_mu(bytes.fromhex(case["public"]), message, context)
    public.verify_mu(published, mu)
    ours = subkey.sign(mu)
    public.verify(ours, message, context)
    assert len(ours) == 3309
    assert ours != subkey.sign(mu), "signing is hedged"
    with pytest.raises(InvalidSignature):
        public.verify(published[:-1] + bytes((published[-1] ^ 1,)), message, context)


def test_ml_dsa_65_makes_every_published_public_key():
    for case in load("ml_dsa_65")["public_sha256"]:
        subkey = from_okm(
            algorithms.ALGORITHM_ML_DSA_65, bytearray.fromhex(case["seed"]), bytes(32), 1
        )
        raw = load_der_public_key(subkey.spki).public_bytes_raw()
        assert hashlib.sha256(raw).hexdigest() == case["public_sha256"], case["count"]


def spki_of(case):
    if "ml_dsa_65_seed" in case:
        public = mldsa.MLDSA65PrivateKey.from_seed_bytes(
            bytes.fromhex(case["ml_dsa_65_seed"])
        ).public_key()
    else:
        jwk = {
            name: urlsafe_b64decode(value + "==")
            for name, value in case["jwk"].items()
            if name not in {"kty", "crv"}
        }
        if case["jwk"]["kty"] == "RSA":
            public = rsa.RSAPublicNumbers(
                *(int.from_bytes(jwk[name], "big") for name in "en")
            ).public_key()
        else:
            public = ed25519.Ed25519PublicKey.from_public_bytes(jwk["x"])
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("case", load("rfc7638"), ids=lambda case: case["source"][:8])
def test_key_ids_are_published_thumbprints(case):
    assert thumbprint(spki_of(case)) == case["thumbprint"]


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: curve.name)
def test_ec_thumbprints_agree_with_pyjwt(curve):
    # PyJWT writes the JWK; the canonical form of RFC 7638 is put together here by hand.
    import jwt

    public = ec.generate_private_key(curve).public_key()
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    text = '{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}'.format(**jwk)
    digest = hashlib.sha256(text.encode()).digest()
    assert (
        urlsafe_b64decode(
            thumbprint(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)) + "="
        )
        == digest
    )


def test_a_key_of_another_kind_has_no_thumbprint():
    public = ec.generate_private_key(ec.SECP256K1()).public_key()
    with pytest.raises(ValueError, match="no JWK"):
        thumbprint(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize(
    ("algorithm", "length"),
    [(algorithms.ALGORITHM_ES256, 32), (algorithms.ALGORITHM_ML_DSA_65, 64)],
)
def test_a_digest_of_another_length_is_refused_not_signed(algorithm, length):
    subkey = from_okm(algorithm, bytearray(b"k" * 32), bytes(32), 1)
    for wrong in (b"", bytes(length - 1), bytes(length + 1)):
        with pytest.raises(FailureError, match="INPUT_MALFORMED"):
            subkey.sign(wrong)


@pytest.mark.parametrize("row", ALGORITHMS.values(), ids=lambda row: row.name)
def test_keying_material_is_wiped_whatever_happens(row):
    okm = bytearray(b"k" * 32)
    if row.derivable:
        assert from_okm(row.number, okm, bytes(32), 1).kid
    else:
        with pytest.raises(FailureError, match="ALGORITHM_NOT_ALLOWED"):
            from_okm(row.number, okm, bytes(32), 1)
    assert okm == bytes(32)


def test_keying_material_of_the_wrong_length_makes_no_key_and_is_wiped():
    okm = bytearray(b"k" * 31)
    with pytest.raises(ValueError):  # noqa: PT011 - the library's own words
        from_okm(algorithms.ALGORITHM_ED25519, okm, bytes(32), 1)
    assert okm == bytes(31)


def test_an_hs256_key_is_wiped_when_its_last_user_lets_go():
    subkey = from_okm(algorithms.ALGORITHM_HS256, bytearray(b"k" * 32), bytes(32), 1)
    key, sign = key_in(subkey), subkey.sign
    tag = sign(b"m")
    del subkey  # the cache dropped it, but a call in flight still holds `sign`
    assert key == b"k" * 32
    assert sign(b"m") == tag
    del sign
    assert key == bytes(32)
