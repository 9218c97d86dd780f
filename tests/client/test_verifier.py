"""A verifier that fetches key sets: which signatures are good, and when it asks again."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from base64 import urlsafe_b64encode
from typing import Any

import capsign
import pytest
from capsign.errors import Unavailable
from capsign.jwk import keys_of
from capsign.key_set_cache import RETRY_S, UNKNOWN_EVERY_S, Fetched, KeySetCache
from capsign.key_set_source import HttpsSource
from capsign_adapter.algorithms.kid import public_members, thumbprint
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.ca import Authority
from support.vectors import load

PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


def text(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def raw(der: bytes, size: int) -> bytes:
    return b"".join(part.to_bytes(size) for part in decode_dss_signature(der))


def keys() -> dict[str, tuple[Any, Any]]:
    """A private key of each algorithm, and how it signs as JOSE has it."""
    p256, p384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    large, ed = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
    ml, sha256, sha384 = mldsa.MLDSA65PrivateKey.generate(), hashes.SHA256(), hashes.SHA384()
    return {
        "EdDSA": (ed, ed.sign),
        "ES256": (p256, lambda m: raw(p256.sign(m, ec.ECDSA(sha256)), 32)),
        "ES384": (p384, lambda m: raw(p384.sign(m, ec.ECDSA(sha384)), 48)),
        "PS256": (large, lambda m: large.sign(m, PSS, sha256)),
        "RS256": (large, lambda m: large.sign(m, padding.PKCS1v15(), sha256)),
        "ML-DSA-65": (ml, ml.sign),
    }


KEYS = keys()


def jwk(algorithm: str, **members: Any) -> dict[str, Any]:
    public = KEYS[algorithm][0].public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    kid = f"{algorithm}-{thumbprint(spki)}"
    made = {**public_members(spki), "kid": kid, "alg": algorithm, "use": "sig"}
    return {**made, "capsign_state": "active", "capsign_version": 1, **members}


def set_of(*algorithms: str, sequence: int = 1) -> bytes:
    members = {"keys": [jwk(name) for name in algorithms], "capsign_sequence": sequence}
    return json.dumps(members).encode()


def jws(algorithm: str, **header: Any) -> str:
    head = {"alg": algorithm, "kid": jwk(algorithm)["kid"], **header}
    signed = f"{text(json.dumps(head).encode())}.{text(b'payload')}"
    return f"{signed}.{text(KEYS[algorithm][1](signed.encode()))}"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def signer(agent):
    with capsign.Signer(agent.path) as made:
        yield made


@pytest.fixture
def verifier(signer, agent, clock):
    agent.key_set = set_of(*KEYS)
    return capsign.Verifier(signer, algorithms=list(KEYS), clock=clock, purpose="jwt")


@pytest.mark.parametrize("algorithm", KEYS)
def test_each_algorithm_verifies_and_nothing_else_does(verifier, algorithm):
    token = jws(algorithm)
    found = verifier.verify_jws(token)
    assert (found.payload, found.key.algorithm, found.key.version) == (b"payload", algorithm, 1)
    head, payload, signature = token.split(".")
    forged = text(b"another"), text(bytes(len(signature) * 3 // 4))
    for bad in (f"{head}.{forged[0]}.{signature}", f"{head}.{payload}.{forged[1]}"):
        with pytest.raises(capsign.InvalidSignature):
            verifier.verify_jws(bad)
    key = verifier.verify(b"raw", KEYS[algorithm][1](b"raw"), kid=found.key.kid)
    assert key == found.key


@pytest.mark.parametrize("case", [each for each in load("rfc7517") if "jwk" in each])
def test_published_keys_are_read(case):
    named = {"kid": "a", "alg": {"EC": "ES256", "RSA": "RS256", "OKP": "EdDSA"}[case["jwk"]["kty"]]}
    assert list(keys_of({"keys": [{**case["jwk"], **named}]})) == ["a"]


@pytest.mark.parametrize(
    "odd",
    [
        {"kty": "oct", "k": "AAAA", "kid": "a", "alg": "HS256"},
        jwk("ES256", use="enc"),
        jwk("ES256", alg="EdDSA"),
        jwk("ES256", alg="none"),
        jwk("ES256", crv="P-384"),
        jwk("ES256", x="AAAA"),
        jwk("RS256", n=text(bytes([255] * 128))),
        jwk("EdDSA", x="=="),
        {"alg": "EdDSA"},
        5,
    ],
)
def test_a_key_that_cannot_be_used_is_passed_over_and_not_its_neighbours(odd):
    assert len(keys_of({"keys": [odd, jwk("EdDSA")]})) == 1


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        jws("ES256") + "=",
        jws("ES256") + ".x",
        jws("ES256", crit=["b64"], b64=False),
        jws("ES256", alg="none"),
        jws("ES256", alg="EdDSA"),
        jws("ES256", kid=5),
        f"{text(b'[]')}.{text(b'')}.{text(b'')}",
        "a" * 300_000,
    ],
)
def test_what_is_no_jws_of_its_key_is_refused(verifier, token):
    with pytest.raises(capsign.Refused):
        verifier.verify_jws(token)


def test_only_the_algorithms_that_were_named_are_accepted(signer, agent, clock):
    agent.key_set = set_of(*KEYS)
    strict = capsign.Verifier(signer, algorithms=["ML-DSA-65"], clock=clock, purpose="jwt")
    strict.verify_jws(jws("ML-DSA-65"))
    with pytest.raises(capsign.Refused, match="not accepted"):
        strict.verify_jws(jws("ES256"))
    for wrong in ([], ["none"], ["HS256"], "ES256"):
        with pytest.raises(ValueError, match="algorithms are"):
            capsign.Verifier(signer, algorithms=wrong)


def test_how_signatures_verified_is_told_to_the_agent_by_kid(verifier, agent, clock):
    good, bad = jws("ES256"), jws("ES256")[:-8] + "AAAAAAAA"
    verifier.verify_jws(good)
    with pytest.raises(capsign.InvalidSignature):
        verifier.verify_jws(bad)
    assert not agent.reports
    clock.now += 10
    verifier.verify_jws(good)
    told = {(each.kid, each.verified, each.failed) for each in agent.reports}
    kid = jwk("ES256")["kid"]
    assert told == {(kid, 2, 0), (kid, 0, 1)}
    verifier.report()
    assert len(agent.reports) == 2


def test_a_signature_of_a_signer_is_taken_as_it_is(verifier, signer, agent):
    made = signer.sign(b"m", purpose="jwt", algorithm="ES256")
    (public,) = signer.public_keys(purpose="jwt", algorithm="ES256")
    own = {**public_members(public.spki), "kid": made.kid, "alg": "ES256"}
    agent.key_set = json.dumps({"keys": [own]}).encode()
    assert verifier.verify(b"m", made).kid == made.kid
    with pytest.raises(capsign.InvalidSignature):
        verifier.verify(b"n", made)


# When it asks again, on values.

KID = jwk("EdDSA")["kid"]
SET = Fetched(set_of("EdDSA", sequence=5), '"5"', 60.0)


def holding(stale: float = 0.0) -> KeySetCache:
    cache = KeySetCache(keys_of, stale)
    assert cache.wants_fetch(0.0)
    cache.fetched(SET, asked=0.0, now=2.0)
    return cache


def away(retry_after: float = 0.0) -> Unavailable:
    return Unavailable("UPSTREAM_UNREACHABLE", "away", retry_after=retry_after)


def test_a_set_is_kept_for_its_age_from_when_it_was_asked_for():
    cache = holding()
    assert not cache.wants_fetch(59.9)
    assert cache.key(KID, 59.9) is not None
    assert cache.wants_fetch(60.0)


def test_what_has_not_changed_is_kept_for_its_age_again():
    cache = holding()
    assert cache.etag == '"5"'
    cache.fetched(Fetched(None, '"5"', 60.0), asked=60.0, now=61.0)
    assert not cache.wants_fetch(119.9)
    assert cache.wants_fetch(120.0)


def test_one_that_may_be_kept_for_no_time_is_used_and_asked_for_each_time():
    cache = KeySetCache(keys_of, 0.0)
    cache.fetched(Fetched(SET.body, "", 0.0), asked=0.0, now=3.0)
    assert cache.key(KID, 3.0) is not None
    assert cache.wants_fetch(3.0)


def test_an_unknown_kid_is_asked_for_once_and_then_not_for_a_while():
    cache = holding()
    assert not cache.wants_unknown(KID, 30.0)
    assert not cache.wants_unknown("other", 2.0), "the set has come just now"
    assert cache.wants_unknown("other", 30.0)
    assert not cache.wants_unknown("another", 30.0 + UNKNOWN_EVERY_S - 0.1)
    assert cache.wants_unknown("another", 30.0 + UNKNOWN_EVERY_S)


def test_an_older_set_is_not_taken_and_a_newer_one_is():
    cache = holding()
    cache.fetched(Fetched(set_of(sequence=4), '"4"', 60.0), asked=60.0, now=60.0)
    assert cache.key(KID, 60.0) is not None
    assert cache.etag == '"5"'
    assert cache.wants_fetch(60.0 + RETRY_S)
    cache.fetched(Fetched(set_of(sequence=6), '"6"', 60.0), asked=61.0, now=61.0)
    assert cache.key(KID, 61.0) is None


def test_while_it_cannot_be_fetched_the_set_is_used_as_long_as_was_said_and_no_longer():
    for stale, until in ((0.0, 60.0), (300.0, 360.0)):
        cache = holding(stale)
        cache.failed(away(retry_after=7.0), 60.0)
        assert not cache.wants_fetch(66.9)
        assert cache.wants_fetch(67.0)
        assert cache.key(KID, until - 0.1) is not None
        with pytest.raises(Unavailable, match="away"):
            cache.key(KID, until)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys":[],"capsign_sequence":"x"}', None])
def test_what_is_no_set_is_not_held(body):
    with pytest.raises(Unavailable):
        KeySetCache(keys_of, 0.0).fetched(Fetched(body, "", 60.0), 0.0, 0.0)


# By HTTPS.


class Server(http.server.ThreadingHTTPServer):
    """Serves one set, or whatever status it is told."""

    def __init__(self, authority: Authority, directory) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        issued = authority.issue("spiffe://capsign.test/adapter", dns=("localhost",))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*issued.write(directory, "server"))
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.status, self.body, self.headers = 200, set_of("EdDSA"), {"ETag": '"1"'}
        self.asked: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        tag = self.headers.get("If-None-Match", "")
        self.server.asked.append(tag)
        same = self.server.status == 200 and tag == self.server.headers.get("ETag")
        self.send_response(304 if same else self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        body = b"" if same else self.server.body
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is said."""


@pytest.fixture
def web(tmp_path):
    authority = Authority()
    server = Server(authority, tmp_path)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    tls = ssl.create_default_context(cadata=authority.certificate.decode())
    yield server, HttpsSource(f"https://localhost:{server.server_port}/set", tls, 20.0)
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_set_is_fetched_and_not_sent_twice(web):
    server, source = web
    server.headers |= {"Cache-Control": "public, max-age=60", "Age": "15"}
    first = source.fetch("")
    assert first == Fetched(server.body, '"1"', 45.0)
    assert source.fetch(first.etag) == Fetched(None, '"1"', 45.0)
    assert server.asked == ["", '"1"']


@pytest.mark.parametrize(
    ("said", "age"),
    [("no-store", 0.0), ("max-age=60, no-cache", 0.0), ("max-age=x", 0.0), ("", 0.0)],
)
def test_what_may_not_be_kept_is_not(web, said, age):
    server, source = web
    server.headers["Cache-Control"] = said
    assert source.fetch("").max_age == age


def test_a_refusal_says_when_to_come_again_and_a_redirection_is_not_followed(web):
    server, source = web
    server.status, server.headers = 429, {"Retry-After": "7"}
    with pytest.raises(Unavailable) as caught:
        source.fetch("")
    assert caught.value.retry_after == 7.0
    server.status, server.headers = 302, {"Location": "https://elsewhere.test/"}
    with pytest.raises(Unavailable, match="302"):
        source.fetch("")


def test_whom_it_does_not_trust_it_does_not_ask(web):
    server, _ = web
    with pytest.raises(Unavailable, match="cannot be reached"):
        HttpsSource(f"https://localhost:{server.server_port}/", None, 20.0).fetch("")
    with pytest.raises(ValueError, match="https"):
        HttpsSource("http://localhost/", None, 20.0)
