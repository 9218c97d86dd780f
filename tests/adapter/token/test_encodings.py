"""Bytes to and from a token, held against `cryptography` as the oracle."""

from __future__ import annotations

import pytest
from capsign_adapter.algorithms.kinds import Family
from capsign_adapter.algorithms.table import TABLE
from capsign_adapter.token import encodings
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.types.v1 import algorithms_pb2 as pb
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from hypothesis import given
from hypothesis import strategies as st


def spki(public):
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("half", [32, 48])
@given(data=st.data())
def test_ecdsa_der_keeps_r_and_s(half, data):
    number = st.integers(0, 2 ** (8 * half) - 1)
    r, s = data.draw(number), data.draw(number)
    der = encodings.ecdsa_der(r.to_bytes(half, "big") + s.to_bytes(half, "big"))
    assert utils.decode_dss_signature(der) == (r, s)


@pytest.mark.parametrize("raw", [b"", b"x", bytes(63)])
def test_ecdsa_halves_must_be_equal(raw):
    with pytest.raises(ValueError, match="two halves"):
        encodings.ecdsa_der(raw)


@pytest.mark.parametrize(
    ("family", "curve"), [(Family.P256, ec.SECP256R1()), (Family.P384, ec.SECP384R1())]
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_ec_point_with_and_without_its_octet_string(family, curve, wrapped):
    public = ec.generate_private_key(curve).public_key()
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    attribute = bytes((4, len(point))) + point if wrapped else point
    assert encodings.ec_spki(family, attribute) == spki(public)


@pytest.mark.parametrize("wrapped", [True, False])
def test_ed25519_point_with_and_without_its_octet_string(wrapped):
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    attribute = (b"\x04\x20" if wrapped else b"") + public.public_bytes_raw()
    assert encodings.ec_spki(Family.ED25519, attribute) == spki(public)


@pytest.mark.parametrize("family", [Family.P256, Family.P384, Family.ED25519])
@pytest.mark.parametrize(
    "point", [b"", b"\x04", bytes(31), bytes(34), bytes(65), bytes(97), bytes(200)]
)
def test_what_is_no_point_is_refused(family, point):
    with pytest.raises(ValueError, match=r"."):
        encodings.ec_spki(family, point)


def test_rsa_key_with_leading_zeros():
    public = rsa.generate_private_key(65537, 2048).public_key()
    modulus = public.public_numbers().n.to_bytes(256, "big")
    assert encodings.rsa_spki(b"\0" + modulus, b"\x01\x00\x01") == spki(public)
    assert load_der_public_key(encodings.rsa_spki(modulus, b"\x00\x01\x00\x01")) == public


def test_digest_info_is_what_openssl_pads():
    key = rsa.generate_private_key(65537, 2048)
    digest = bytes(range(32))
    signature = key.sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))
    padded = pow(
        int.from_bytes(signature, "big"), 65537, key.public_key().public_numbers().n
    ).to_bytes(256, "big")
    assert padded.endswith(b"\xff\0" + encodings.digest_info(digest))


def test_in_token_rows_agree_with_the_algorithm_table():
    direct = {n for n, row in ALGORITHMS.items() if pb.CUSTODY_CLASS_HSM_DIRECT in row.custody}
    in_token = {n: row.in_token for n, row in TABLE.items() if row.in_token is not None}
    assert set(in_token) == direct
    for number, row in in_token.items():
        assert row.input_len == (
            ALGORITHMS[number].max_input if ALGORITHMS[number].takes_digest else 0
        )
