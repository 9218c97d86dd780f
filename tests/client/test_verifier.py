"""A verifier that fetches key sets: which signatures are good, and when it asks again."""

from __future__ import annotations

import json

import capsign
import pytest
from capsign.errors import Unavailable
from capsign.jwk import keys_of
from capsign.key_set_cache import RETRY_S, UNKNOWN_EVERY_S, Fetched, KeySetCache
from capsign.key_set_source import HttpsSource
from capsign_adapter.algorithms.kid import public_members
from support.key_sets import KEYS, Clock, jwk, jws, served, set_of, text
from support.vectors import load


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


@pytest.fixture
def web(tmp_path):
    with served(tmp_path) as (server, url, tls):
        yield server, HttpsSource(url, tls, 20.0)


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
