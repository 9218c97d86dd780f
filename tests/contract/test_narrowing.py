"""What agents write into a handle is what the adapter understands: the two packages share these
words and no code.
"""

from __future__ import annotations

from itertools import product

import pytest
from capsign_adapter.decide.admission import Operation
from capsign_adapter.decide.biscuits import Mint, Verifier
from capsign_agent.handles.narrow import Narrowing
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as why
from support.handles import KEY_HASH, NOW, ORDERS, events

MINT = Mint(bytes(32))
VERIFIER = Verifier(MINT.public_key)
TOKEN = MINT.mint(events())
SEND = Operation("ES256", "webhook", "sender", "1", transcript=False)

CASES = list(product([(), ("ES256",), ("HS256", "ES256", "ML-DSA-65")], ["", "sender"], [0, 60]))


@pytest.mark.parametrize(("algorithms", "role", "ttl_s"), CASES)
def test_every_narrowing_that_an_agent_can_write_is_honoured(algorithms, role, ttl_s):
    narrowing = Narrowing(algorithms=algorithms, role=role, ttl_s=ttl_s)
    end = narrowing.ends(NOW / 1000, events().expires_ms / 1000)
    handle = VERIFIER.verify(narrowing.apply(TOKEN, MINT.public_key, end), ORDERS, KEY_HASH, NOW, 0)
    assert handle.expires_ms == (NOW + 60_000 if ttl_s else events().expires_ms)
    handle.require(SEND, NOW)
    for outside, narrowed, reason in (
        (
            Operation("Ed25519", "webhook", "sender", "1", transcript=False),
            algorithms,
            why.REASON_ALGORITHM_NOT_ALLOWED,
        ),
        (
            Operation("ES256", "webhook", "relay", "1", transcript=False),
            role,
            why.REASON_CONTEXT_NOT_ALLOWED,
        ),
    ):
        if narrowed:
            with pytest.raises(FailureError) as caught:
                handle.require(outside, NOW)
            assert caught.value.reason == reason
        else:
            handle.require(outside, NOW)
    with pytest.raises(FailureError) as caught:
        handle.require(SEND, handle.expires_ms)
    assert caught.value.reason == why.REASON_HANDLE_EXPIRED
