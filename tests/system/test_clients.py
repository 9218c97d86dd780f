"""Both clients against real processes: the Python one through crashes, an outsider's in Node from
`proto/` alone.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import capsign
import pytest
from capsign_wire.intents import new_intent_id
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support import generic_client
from support.dev import stopped

JWT = {"purpose": "jwt", "algorithm": "ES256", "protocol": "jwt"}


def verify(spki, algorithm, signature, message):
    key: Any = load_der_public_key(spki)
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(
            signature,
            message,
            ec.ECDSA(hashes.SHA384() if algorithm.endswith("384") else hashes.SHA256()),
        )
    else:
        key.verify(signature, message)


def test_an_outsiders_client_signs_with_every_kind_of_key(dev, pytestconfig):
    folder = generic_client.install(pytestconfig)
    for purpose, algorithm in [
        ("jwt", "ALGORITHM_ES256"),
        ("jwt", "ALGORITHM_ED25519"),
        ("jwt", "ALGORITHM_ML_DSA_65"),
        ("root-es384", "ALGORITHM_ES384"),
        ("webhook", "ALGORITHM_HS256"),
    ]:
        found = generic_client.run(
            folder, dev.socket(), purpose, algorithm, message=b"from another language"
        )
        assert found["same_bytes"], algorithm
        assert found["verified_kid"] == found["kid"]
        assert found["refusal"]["reason"] == "SIGNATURE_INVALID"
        assert found["resolved_same"]
        if found["spki"]:
            verify(
                bytes.fromhex(found["spki"]),
                algorithm,
                bytes.fromhex(found["signature"]),
                b"from another language",
            )
        else:
            assert algorithm == "ALGORITHM_HS256"


def test_a_stopped_adapter_makes_unknown_and_resolving_ends_it(dev):
    with capsign.Signer(dev.socket()) as signer:
        signer.sign(b"warm", **JWT)
        with stopped(dev.adapter()), pytest.raises(capsign.Unknown) as caught:
            signer.sign(b"stuck", timeout=1.0, **JWT)
        match signer.resolve(caught.value):
            case capsign.Done(signature):
                signer.verify(b"stuck", signature, purpose="jwt", protocol="jwt")
                assert len(dev.signed_intents()[caught.value.intent_id]) == 1
            case capsign.Never():
                assert caught.value.intent_id not in dev.signed_intents()
            case other:
                pytest.fail(f"{other} is no ending of a call that was not refused")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_an_agent_that_ends_under_load_is_only_a_pause(dev, number):
    """64 tasks sign while the agent is ended and another starts, with other handle ids. Nobody
    fails, nothing is signed twice.
    """
    async with capsign.AsyncSigner(dev.socket(), timeout=40) as signer:
        done: list = []
        enough = asyncio.Event()

        async def work(name):
            for turn in range(30):
                message = b"%d-%d" % (name, turn)
                done.append((message, await signer.sign(message, **JWT)))
                if len(done) == 300:
                    enough.set()

        tasks = [asyncio.ensure_future(work(name)) for name in range(64)]
        await enough.wait()
        await asyncio.to_thread(dev.end, dev.agent, number)
        dev.start_agent()
        await asyncio.gather(*tasks)
        assert len(done) == 64 * 30
        for message, signature in done[::97]:
            await signer.verify(message, signature, purpose="jwt", protocol="jwt")
    signed = dev.signed_intents()
    assert all(len(signed[signature.intent_id]) == 1 for _, signature in done)


def test_fifty_callers_of_one_intent_get_one_signature(dev):
    with capsign.Signer(dev.socket()) as signer:
        first = signer.sign(b"once", **JWT)
        intent, start = new_intent_id(), threading.Barrier(50)

        def call(_):
            start.wait()
            return signer.sign(b"the same", intent_id=intent, **JWT)

        with ThreadPoolExecutor(50) as pool:
            values = {signature.value for signature in pool.map(call, range(50))}
        assert len(values) == 1
        assert values != {first.value}
        with pytest.raises(capsign.Refused) as caught:
            signer.sign(b"another", intent_id=intent, **JWT)
        assert caught.value.reason == "INTENT_CONFLICT"
    assert len(dev.signed_intents()[intent]) == 1
