"""The verifier of asyncio: what differs from that of threads. Which signatures are good, and when
it asks again, is the same code and tested there.
"""

from __future__ import annotations

import asyncio
from functools import partial

import capsign
import pytest
from support.key_sets import KEYS, Clock, jwk, jws, served, set_of


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def signer(agent):
    async with capsign.AsyncSigner(agent.path) as made:
        yield made


@pytest.fixture
def verifier(signer, agent, clock):
    agent.key_set = set_of(*KEYS)
    return capsign.AsyncVerifier(signer, algorithms=list(KEYS), clock=clock, purpose="jwt")


@pytest.fixture
def web(tmp_path):
    """A server of keys, and a verifier that asks it."""
    with served(tmp_path) as (server, url, tls):
        server.headers |= {"Cache-Control": "max-age=60"}
        yield server, partial(capsign.AsyncVerifier, url, algorithms=["EdDSA"], tls=tls)
        server.let.set()


async def test_good_and_bad_ones_and_what_is_told_of_them(verifier, signer, agent):
    found = await verifier.verify_jws(jws("ES256"))
    assert (found.payload, found.key.algorithm) == (b"payload", "ES256")
    with pytest.raises(capsign.InvalidSignature):
        await verifier.verify_jws(jws("ES256")[:-8] + "AAAAAAAA")
    with pytest.raises(capsign.Refused):
        await verifier.verify_jws("a.b")
    with pytest.raises(capsign.InvalidSignature):
        await verifier.verify(b"m", b"s", kid="unknown")
    key = await verifier.verify(b"raw", KEYS["EdDSA"][1](b"raw"), kid=jwk("EdDSA")["kid"])
    assert key.algorithm == "EdDSA"
    await signer.close()
    told = {(each.kid, each.verified, each.failed) for each in agent.reports}
    assert {kid: sum(v for k, v, _ in told if k == kid) for kid, _, _ in told} == {
        jwk("ES256")["kid"]: 1,
        jwk("EdDSA")["kid"]: 1,
    }
    assert sum(failed for _, _, failed in told) == 1


async def test_a_signature_of_a_signer_is_taken_as_it_is(verifier, signer, agent):
    made = await signer.sign(b"m", purpose="jwt", algorithm="ES256")
    with pytest.raises(capsign.InvalidSignature, match="kid"):
        await verifier.verify(b"m", made)


async def test_many_calls_share_one_fetch_and_the_loop_runs_meanwhile(web):
    server, make = web
    server.let.clear()
    verifier = make()
    calls = [asyncio.create_task(verifier.verify_jws(jws("EdDSA"))) for _ in range(20)]
    await asyncio.to_thread(server.began.wait, 20)
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    server.let.set()
    assert {found.payload for found in await asyncio.gather(*calls[1:])} == {b"payload"}
    assert len(server.asked) == 1


async def test_an_unknown_kid_that_comes_during_a_fetch_waits_for_it(web, clock):
    server, make = web
    verifier = make(clock=clock)
    await verifier.verify_jws(jws("EdDSA"))
    clock.now += 30
    calls = [verifier.verify(b"m", b"s", kid=f"k{number}") for number in range(20)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(one) for one in found} == {capsign.InvalidSignature}
    assert len(server.asked) == 2


async def test_by_https_and_through_no_proxy_that_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with served(tmp_path) as (server, url, tls):
        for kind in (capsign.Verifier, capsign.AsyncVerifier):
            through = kind(url, algorithms=["EdDSA"], tls=tls, environment_proxies=True)
            direct = kind(url, algorithms=["EdDSA"], tls=tls)
            if kind is capsign.AsyncVerifier:
                assert (await direct.verify_jws(jws("EdDSA"))).payload == b"payload"
                with pytest.raises(capsign.Unavailable):
                    await through.verify_jws(jws("EdDSA"))
            else:
                assert direct.verify_jws(jws("EdDSA")).payload == b"payload"
                with pytest.raises(capsign.Unavailable):
                    through.verify_jws(jws("EdDSA"))
        assert len(server.asked) == 2


def test_what_no_verifier_can_be_made_of():
    with pytest.raises(ValueError, match="algorithms are"):
        capsign.AsyncVerifier("https://keys.test/set", algorithms=["none"])
    with pytest.raises(ValueError, match="https"):
        capsign.AsyncVerifier("http://keys.test/set", algorithms=["EdDSA"])
    with pytest.raises(ValueError, match="whole place"):
        capsign.AsyncVerifier("https://keys.test/set", algorithms=["EdDSA"], grant="a")
