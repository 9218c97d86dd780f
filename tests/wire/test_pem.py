"""A certificate file is taken with whatever stands around the certificates, wherever OpenSSL takes
it; and no damaged one is.
"""

from __future__ import annotations

import base64
import ssl
import subprocess

import pytest
from capsign_adapter.front.tls import CertificateFiles, read_authorities
from capsign_agent.identity.credentials import CredentialsError, checked
from capsign_cli import credentials as cli
from capsign_injector.build import agent_config
from capsign_injector.certificate import certificates, mounted
from capsign_injector.certificate.certificates import Pair
from capsign_wire import pem
from capsign_wire.kubernetes_api import KubernetesApi
from hypothesis import given
from hypothesis import strategies as st
from support.agent_pki import TestCa

ONE, TWO = TestCa("one"), TestCa("two")
BOTH = [ONE.der, TWO.der]


def block(der, label="CERTIFICATE", width=64, end="\n"):
    text = base64.b64encode(der).decode()
    return (
        f"-----BEGIN {label}-----{end}"
        + "".join(text[at : at + width] + end for at in range(0, len(text), width))
        + f"-----END {label}-----{end}"
    )


def text_of(ca):
    command = ["openssl", "x509", "-text"]
    return subprocess.run(command, input=ca.pem, capture_output=True, check=True).stdout


def trusted(ca):
    command = [
        "openssl",
        "x509",
        "-trustout",
        "-addtrust",
        "clientAuth",
        "-setalias",
        "Gef\u00e4\u00df",
    ]
    return subprocess.run(command, input=ca.pem, capture_output=True, check=True).stdout


DRESSED = {
    "plain": ONE.pem + TWO.pem,
    "a comment in UTF-8": "# Z\u00fcrich \U0001f511\n".encode()
    + ONE.pem
    + "\u2014\n".encode()
    + TWO.pem
    + "\n\u00e9".encode(),
    "a comment in latin-1": b"# Z\xfcrich\n" + ONE.pem + b"\xe9\xff\n" + TWO.pem,
    "control characters": b"\x01\x1b[31m\n" + ONE.pem + TWO.pem,
    "Windows": (ONE.pem + TWO.pem).replace(b"\n", b"\r\n"),
    "no last line end": (ONE.pem + TWO.pem).rstrip(),
    "blanks at the ends of lines": (ONE.pem + TWO.pem).replace(b"\n", b"  \t\n"),
    "as text": text_of(ONE) + text_of(TWO),
    "trusted": trusted(ONE) + trusted(TWO),
    "the old label": (block(ONE.der, "X509 CERTIFICATE") + block(TWO.der)).encode(),
    "long lines": (block(ONE.der, width=76) + block(TWO.der, width=64)).encode(),
    "twice": ONE.pem + TWO.pem + ONE.pem,
    "attributes of PKCS #12": b"Bag Attributes\n    friendlyName: x\nsubject=CN = \xc3\xa9\n"
    + ONE.pem
    + TWO.pem,
    "another kind between": ONE.pem
    + b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    + TWO.pem,
}
MARKED = {
    "a byte order mark": b"\xef\xbb\xbf" + ONE.pem + TWO.pem,
    "old Macintosh": (ONE.pem + TWO.pem).replace(b"\n", b"\r"),
}
"""What editors make, and OpenSSL reads nothing or half of."""


@pytest.mark.parametrize("name", DRESSED)
def test_openssl_finds_the_same(name, tmp_path):
    file = tmp_path / "ca.pem"
    file.write_bytes(DRESSED[name])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=file)
    assert sorted(context.get_ca_certs(binary_form=True)) == sorted(pem.authorities(DRESSED[name]))


@pytest.mark.parametrize("name", [*DRESSED, *MARKED])
def test_every_process_takes_it(name, tmp_path):
    """A CA file with an umlaut in a comment was refused by agent and adapter, and taken by every
    other program.
    """
    data = {**DRESSED, **MARKED}[name]
    assert pem.authorities(data) == BOTH
    ca, chain, key = (tmp_path / each for each in ("ca.pem", "chain.pem", "key.pem"))
    ca.write_bytes(data)
    certificate, private = ONE.issue("spiffe://example.test/ns/shop/sa/orders")
    held = checked(data, b"\xef\xbb\xbf" + certificate + data, b"\xef\xbb\xbf" + private)
    assert held.ca == pem.written(BOTH)
    assert pem.certificates(held.certificate)[1:3] == BOTH
    held.channel()
    chain.write_bytes(b"# \xe9\n" + certificate.replace(b"\n", b"\r\n"))
    key.write_bytes("# \u00e9\n".encode() + private)
    assert read_authorities(ca) == pem.written(BOTH)
    assert CertificateFiles(chain, key, ca).load()
    assert cli.load(ca, chain, key)
    assert cli.out_of_time(chain, ca) == ""
    if name != "trusted":
        injected = agent_config.certificates(data.decode(errors="replace")).encode()
        assert injected in {pem.written(BOTH), pem.written([*BOTH, ONE.der])}
    if b"PUBLIC" not in data:
        assert certificates.normal(data) in {pem.written(BOTH), pem.written([*BOTH, ONE.der])}
    dressed = mounted.pair_of(
        b"\xef\xbb\xbf# \xe9\r\n" + certificate.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + private
    )
    assert dressed == Pair(certificate, private)
    token = tmp_path / "token"
    token.write_text("a")
    api = KubernetesApi("https://localhost", token, ca, user_agent="test")
    assert api.trusting().cert_store_stats()["x509_ca"] == 2


@given(
    st.lists(
        st.binary(max_size=40).filter(lambda text: b"--" not in text and b"\xef\xbb" not in text),
        min_size=3,
        max_size=3,
    )
)
def test_no_text_around_them_matters(texts):
    before, between, after = (text + b"\n" for text in texts)
    assert pem.certificates(before + ONE.pem + between + TWO.pem + after) == BOTH


@given(st.binary(max_size=300))
def test_there_and_back(raw):
    der = b"\x30\x82" + len(raw).to_bytes(2, "big") + raw
    assert pem.certificates(pem.written([der, der])) == [der, der]


CUT = ONE.pem.replace(b"-----END CERTIFICATE-----", b"")
DAMAGED = {
    "no end": ONE.pem + CUT,
    "cut inside": ONE.pem[: len(ONE.pem) // 2],
    "a letter lost": ONE.pem.replace(b"\n", b"\n", 1)[:60] + ONE.pem[61:],
    "no base64": block(ONE.der).replace("A", "*").encode(),
    "something after it": block(ONE.der + b"x").encode(),
    "less than it says": block(ONE.der[:-1]).encode(),
    "no certificate at all": b"# nothing\n",
    "empty": b"",
    "a key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "DER": ONE.der,
    "no DER": block(b"hello").encode(),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_one_is_refused_whole(name):
    """Of two, one good, nothing is taken: an authority that is silently not there is an outage
    later.
    """
    with pytest.raises(ValueError, match=r"certificate|base64"):
        pem.authorities(DAMAGED[name])
    certificate, private = ONE.issue("spiffe://example.test/ns/shop/sa/orders")
    with pytest.raises(CredentialsError, match="authorities"):
        checked(DAMAGED[name], certificate, private)
