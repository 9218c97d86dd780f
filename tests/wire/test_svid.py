"""Whom a certificate names: one spelling, one URI, a leaf; and both readers of it see the same."""

from __future__ import annotations

import pytest
from capsign_agent.identity import own_certificate
from capsign_wire import svid
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from support.ca import Authority, usage

GOOD = "spiffe://shop.example/ns/orders/sa/app"
AUTHORITY = Authority()


def read_by_both(pem: bytes) -> str:
    """What the adapter's reader and the agent's say; they must agree."""
    said = []
    for reader in (
        lambda: svid.identity_of(x509.load_pem_x509_certificate(pem)),
        lambda: own_certificate.read(pem).spiffe_id,
    ):
        try:
            said.append(reader())
        except svid.NotAnSvidError:
            said.append("nobody")
    assert said[0] == said[1], said
    return said[0]


@pytest.mark.parametrize(
    "text", [GOOD, "spiffe://a/b", "spiffe://a-b_c.d/A.b/..c/...", "spiffe://a/" + "x" * 244]
)
def test_what_names_a_workload(text):
    assert svid.check_id(text) == text
    assert read_by_both(AUTHORITY.issue(text).certificate) == text


@given(st.binary(max_size=12), st.integers(0, len(GOOD)))
def test_nothing_put_into_it_is_overlooked(added, at):
    """Whatever bytes are put wherever into a good one: it names nobody, or exactly what it then
    says.
    """
    raw = GOOD[:at].encode() + added + GOOD[at:].encode()
    assert read_by_both(AUTHORITY.issue(raw).certificate) in {"nobody", raw.decode("latin-1")}


@given(st.text())
def test_only_one_spelling_passes(text):
    try:
        passed = svid.check_id(text)
    except svid.NotAnSvidError:
        return
    assert passed == text
    assert text.isascii()
    assert text.startswith("spiffe://")
    assert not {"", ".", ".."} & set(text.removeprefix("spiffe://").split("/"))


@pytest.mark.parametrize(
    "more", ["\n", "\r\n", "\0", "\0/more", "#", "#part", "?", "?a=b", "/", "%41", " ", "\t", ":1"]
)
def test_nothing_may_follow_it(more):
    """What is read up to its first odd byte, or to the end of a line, is somebody else's name."""
    with pytest.raises(svid.NotAnSvidError):
        svid.check_id(GOOD + more)
    assert read_by_both(AUTHORITY.issue((GOOD + more).encode()).certificate) == "nobody"


@pytest.mark.parametrize("uris", [(), (GOOD, GOOD), (GOOD, "https://shop.example/")])
def test_exactly_one_uri(uris):
    assert read_by_both(AUTHORITY.issue(*uris, dns=("app",)).certificate) == "nobody"


@pytest.mark.parametrize(
    ("extensions", "named"),
    [
        ((), GOOD),
        (
            (
                x509.BasicConstraints(ca=False, path_length=None),
                usage(signs=True, signs_certificates=False),
            ),
            GOOD,
        ),
        ((x509.BasicConstraints(ca=True, path_length=None),), "nobody"),
        ((usage(signs=True, signs_certificates=True),), "nobody"),
        ((usage(signs=True, signs_certificates=False, signs_lists=True),), "nobody"),
        ((usage(signs=False, signs_certificates=False),), "nobody"),
    ],
)
def test_a_leaf_and_only_a_leaf(extensions, named):
    assert read_by_both(AUTHORITY.issue(GOOD, extensions=extensions).certificate) == named


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "P-256"),
        (ec.generate_private_key(ec.SECP384R1()), "P-384"),
        (rsa.generate_private_key(65537, 2048), "RSA"),
        (ec.generate_private_key(ec.SECP521R1()), ""),
        (ed25519.Ed25519PrivateKey.generate(), ""),
        (ed448.Ed448PrivateKey.generate(), ""),
    ],
)
def test_the_kind_of_key(key, kind):
    assert own_certificate.read(AUTHORITY.issue(GOOD, key=key).certificate).key == kind
