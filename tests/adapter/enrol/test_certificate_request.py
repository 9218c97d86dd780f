"""Certificate requests as bytes from strangers."""

from __future__ import annotations

import pytest
from capsign_adapter.enrol import certificate_request
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st
from support.certificate_requests import refused, request

OWN = "spiffe://capsign.test/ns/demo/sa/app"
BAD = refused()
KEY = ec.generate_private_key(ec.SECP256R1())
GOOD = request(OWN, key=KEY)


def test_a_plain_request_is_its_key():
    asked = certificate_request.read(request(key=KEY))
    assert asked.spki == KEY.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert asked.names == ()


def test_the_name_that_is_asked_for_is_told():
    assert certificate_request.read(GOOD).names == (OWN,)


@pytest.mark.parametrize("what", BAD)
def test_what_asks_for_more_or_is_no_request_is_refused(what):
    with pytest.raises(FailureError) as caught:
        certificate_request.read(BAD[what])
    assert caught.value.reason == reasons.REASON_CERTIFICATE_REQUEST_REFUSED
    assert caught.value.field == "certificate_request"


@given(st.binary(max_size=5000))
@example(b"\x30\x80")
def test_noise_is_refused_by_one_kind_of_error(noise):
    with pytest.raises(FailureError) as caught:
        certificate_request.read(noise)
    assert caught.value.reason == reasons.REASON_CERTIFICATE_REQUEST_REFUSED


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@example(8, 1)  # version 2: `cryptography` says so with an error that is no ValueError
def test_no_altered_byte_passes(at, flip):
    """Everything that is read is under the signature, and the signature has no second spelling that
    we take.
    """
    altered = bytearray(GOOD)
    altered[at] ^= flip
    with pytest.raises(FailureError) as caught:
        certificate_request.read(bytes(altered))
    assert caught.value.reason == reasons.REASON_CERTIFICATE_REQUEST_REFUSED


def test_a_signature_with_unused_bits_is_another_spelling_and_refused():
    """The byte before the signature counts unused bits. The library takes 1 to 7 where the last
    bits happen to be 0.
    """
    even = next(
        der for der in (request(OWN, key=KEY) for _ in range(200)) if der[-1] % 2 == 0
    )  # signatures differ each time
    at = len(even) - len(x509.load_der_x509_csr(even).signature) - 1
    respelt = even[:at] + b"\x01" + even[at + 1 :]
    assert x509.load_der_x509_csr(respelt).is_signature_valid
    with pytest.raises(FailureError) as caught:
        certificate_request.read(respelt)
    assert caught.value.reason == reasons.REASON_CERTIFICATE_REQUEST_REFUSED


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=6)), min_size=1, max_size=6)
)
def test_inserted_bytes_never_pass_as_another_request(insertions):
    altered = GOOD
    for at, more in insertions:
        altered = altered[:at] + more + altered[at:]
    if altered == GOOD:
        return
    with pytest.raises(FailureError):
        certificate_request.read(altered)


def test_a_refusal_repeats_nothing_of_the_request():
    for name in ("subject", "DNS name", "mail address", "challenge password"):
        with pytest.raises(FailureError) as caught:
            certificate_request.read(BAD[name])
        text = str(caught.value)
        assert not any(
            word in text for word in ("admin", "capsign-system", "example.test", "secret")
        )
