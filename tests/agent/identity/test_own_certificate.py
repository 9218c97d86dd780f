from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from capsign_agent.identity import own_certificate
from capsign_agent.identity.own_certificate import not_after
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

KEY = ed25519.Ed25519PrivateKey.generate()


def certificate(end: datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 60)])
    builder = x509.CertificateBuilder(
        issuer_name=name, subject_name=name, public_key=KEY.public_key(), serial_number=2**150
    )
    signed = builder.not_valid_before(end - timedelta(days=1)).not_valid_after(end).sign(KEY, None)
    return signed.public_bytes(serialization.Encoding.PEM)


@given(st.datetimes(datetime(1960, 1, 1), datetime(2200, 1, 1)))
def test_agrees_with_the_library_for_every_year(end: datetime) -> None:
    end = end.replace(microsecond=0)
    pem = certificate(end)
    assert (
        not_after(b"a comment\n" + pem + certificate(end + timedelta(days=9)))
        == end.replace(tzinfo=UTC).timestamp()
    )
    assert x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp() == not_after(pem)


@given(st.integers(0, 400))
def test_what_is_cut_off_is_refused_or_still_has_its_end(size: int) -> None:
    import ssl

    pem = certificate(datetime(2030, 1, 1))
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    with pytest.raises(ValueError):  # noqa: PT011 - which one does not matter
        not_after(ssl.DER_cert_to_PEM_cert(der[: min(size, len(der) - 1)]).encode())


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)]
)
def test_the_key_is_named_as_the_adapter_names_it(key: Any) -> None:
    """Reconciliation finds the agent of a signature by this hash."""
    workload = x509.UniformResourceIdentifier("spiffe://capsign.test/shop/checkout")
    name = x509.Name([])
    now = datetime(2030, 1, 1)
    signed = (
        x509.CertificateBuilder(
            issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1
        )
        .add_extension(x509.SubjectAlternativeName([workload]), critical=True)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    own = own_certificate.read(signed.public_bytes(serialization.Encoding.PEM))
    assert own.key_hash == hashlib.sha256(spki).digest()
