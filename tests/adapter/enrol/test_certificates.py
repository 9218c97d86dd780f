"""What an authority signs, as others read it: the SPIFFE specification's clauses, and openssl's
verdict.
"""

from __future__ import annotations

import subprocess
import time

import pytest
from capsign_adapter.enrol.certificates import leaf_certificate, root_certificate
from capsign_adapter.keys import labels, provision
from capsign_adapter.keys.authority_key import AuthorityKey
from capsign_wire.types.v1 import algorithms_pb2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.fake_token import FakeToken

HOUR_MS = 3_600_000
APP = "spiffe://capsign.test/ns/demo/sa/app"


@pytest.fixture(scope="module")
def token():
    return FakeToken()


def authority(token, version):
    provision.make_authority(token, version)
    key = AuthorityKey(token, labels.authority(version))
    now_ms = int(time.time()) * 1000
    root = root_certificate(key, version, "capsign.test", now_ms - 60_000, now_ms + 24 * HOUR_MS)
    return key, x509.load_der_x509_certificate(root)


@pytest.fixture(scope="module")
def first(token):
    return authority(token, 1)


def issue(pair, spiffe_id=APP, names=(), begins=-60_000, ends=HOUR_MS):
    key, root = pair
    now_ms = int(time.time()) * 1000
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = leaf_certificate(key, root, public, spiffe_id, now_ms + begins, now_ms + ends, names)
    return x509.load_der_x509_certificate(der)


def extension(certificate, kind):
    found = certificate.extensions.get_extension_for_class(kind)
    return found.value, found.critical


def test_the_authority_is_what_a_spiffe_bundle_holds(first):
    _, root = first
    constraints, critical = extension(root, x509.BasicConstraints)
    assert (constraints.ca, constraints.path_length, critical) == (True, 0, True)
    usage, critical = extension(root, x509.KeyUsage)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature, critical) == (
        True,
        True,
        False,
        True,
    )
    names, _ = extension(root, x509.SubjectAlternativeName)
    assert [name.value for name in names] == [
        "spiffe://capsign.test"
    ]  # X509-SVID 3.1: no path component
    assert root.subject == root.issuer
    root.verify_directly_issued_by(root)


def test_an_svid_is_what_the_specification_says(first):
    svid = issue(first)
    names, critical = extension(svid, x509.SubjectAlternativeName)
    assert [name.value for name in names] == [APP]  # X509-SVID 2: exactly one URI
    assert critical  # RFC 5280 4.2.1.6: the subject is empty
    assert svid.subject == x509.Name([])
    constraints, _ = extension(svid, x509.BasicConstraints)
    assert constraints.ca is False  # 4.1
    usage, critical = extension(svid, x509.KeyUsage)
    assert critical  # 4.3
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert not usage.crl_sign
    purposes, _ = extension(svid, x509.ExtendedKeyUsage)
    assert set(purposes) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }  # 4.4: both
    assert svid.serial_number.bit_length() > 64
    issuer, _ = extension(svid, x509.AuthorityKeyIdentifier)
    root, _ = extension(first[1], x509.SubjectKeyIdentifier)
    assert issuer.key_identifier == root.digest


def test_serials_differ(first):
    assert len({issue(first).serial_number for _ in range(50)}) == 50


def test_a_serving_certificate_has_its_names_and_one_identity(first):
    names, _ = extension(
        issue(first, names=("adapter.svc", "10.0.0.1", "::1")), x509.SubjectAlternativeName
    )
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [APP]
    assert names.get_values_for_type(x509.DNSName) == ["adapter.svc"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == [
        "10.0.0.1",
        "::1",
    ]


def openssl_says(directory, roots, certificate, *arguments):
    (directory / "roots.pem").write_bytes(
        b"".join(root.public_bytes(Encoding.PEM) for root in roots)
    )
    (directory / "leaf.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-check_ss_sig",
        "-no-CApath",
        "-no-CAstore",
        *arguments,
    ]
    done = subprocess.run(
        [*command, "-CAfile", str(directory / "roots.pem"), str(directory / "leaf.pem")],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_verifies_both_purposes_strictly(first, tmp_path, purpose):
    good, said = openssl_says(
        tmp_path, [first[1]], issue(first, names=("adapter.svc",)), "-purpose", purpose
    )
    assert good, said


def test_openssl_finds_the_right_one_of_two_authorities(first, token, tmp_path):
    second = authority(token, 2)
    for pair in (first, second):
        assert openssl_says(tmp_path, [first[1], second[1]], issue(pair))[0]
    assert not openssl_says(tmp_path, [first[1]], issue(second))[0]


def test_openssl_refuses_a_name_that_it_does_not_have_and_a_time_that_is_over(first, tmp_path):
    assert not openssl_says(
        tmp_path, [first[1]], issue(first, names=("adapter.svc",)), "-verify_hostname", "other.svc"
    )[0]
    good, said = openssl_says(tmp_path, [first[1]], issue(first, begins=-HOUR_MS, ends=-1000))
    assert not good
    assert "expired" in said


def test_no_workload_is_an_authority(first, tmp_path):
    """A workload that signs for another: its own certificate says CA:FALSE, and the root allows
    nothing in between.
    """
    key, root = first
    holder = ec.generate_private_key(ec.SECP256R1())
    now_ms = int(time.time()) * 1000
    der = leaf_certificate(key, root, holder.public_key(), APP, now_ms - 1000, now_ms + HOUR_MS)
    middle = x509.load_der_x509_certificate(der)
    forged = leaf_certificate(
        holder, middle, holder.public_key(), f"{APP}-admin", now_ms - 1000, now_ms + HOUR_MS
    )
    (tmp_path / "middle.pem").write_bytes(middle.public_bytes(Encoding.PEM))
    good, _ = openssl_says(
        tmp_path,
        [root],
        x509.load_der_x509_certificate(forged),
        "-untrusted",
        str(tmp_path / "middle.pem"),
    )
    assert not good


def test_the_key_signs_with_sha_256_only_and_gives_nothing_away(token, first):
    key, _ = first
    with pytest.raises(ValueError, match="SHA-256"):
        key.sign(b"data", ec.ECDSA(hashes.SHA384()))
    for method, arguments in (
        (key.private_numbers, ()),
        (key.private_bytes, (None, None, None)),
        (key.exchange, (None, None)),
    ):
        with pytest.raises(TypeError, match="stays in the token"):
            method(*arguments)


def test_only_a_p256_key_is_an_authority(token):
    token.generate_key_pair("capsign/authority/99", algorithms_pb2.ALGORITHM_ES384)
    with pytest.raises(ValueError, match="P-256"):
        AuthorityKey(token, "capsign/authority/99")
