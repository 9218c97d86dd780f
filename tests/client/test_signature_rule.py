"""By which rule a verifier takes the signatures of a call (I10: a second signature stripped)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import capsign
import pytest
from capsign.call import Ask
from capsign.handles import HandleCache
from capsign.inputs import selector_of
from capsign.results import KeyHandle, Signature, SignedBy
from capsign.signature_rule import Signatures, verifying
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.algorithms import BY_NAME
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons

HANDLE = KeyHandle("h", "g", "jwt", ("ES256", "ML-DSA-65"), (), "forbidden", None, 0)
GOOD = {("ES256", b"old"): "kid-old", ("ML-DSA-65", b"new"): "kid-new", ("ES256", b"v2"): "kid-v2"}
"""What verifies, and under which key."""


def made(name: str, value: bytes, *others: Signature) -> Signature:
    by = SignedBy("any", 1, "adapter-memory", b"", b"", b"")
    return Signature(value, name, bytes(16), 7, by, others)


OLD, NEW = made("ES256", b"old"), made("ML-DSA-65", b"new")
BOTH = replace(OLD, others=(NEW,))


def verify(given: Any, *, algorithm: str | None = None, knows=None, **rule) -> str:
    """The kid that `Signer.verify` finds, with an agent whose handle `knows` these algorithms."""
    book = HandleCache()
    book.store([HANDLE])
    signatures = Signatures(given, algorithm, rule.get("rule", "either"), rule.get("required", ()))
    call = verifying(
        book, lambda name: selector_of("jwt", None, None, name), (b"m", None), signatures, 5.0
    )
    try:
        step = next(call)
        while True:
            assert isinstance(step, Ask)
            step = call.send(answer(step.request, knows))
    except StopIteration as stop:
        return stop.value.kid


def answer(request: pb.VerifyRequest, knows) -> pb.VerifyResponse | FailureError:
    name = next(name for name, row in BY_NAME.items() if row.number == request.algorithm)
    if knows is not None and name not in knows:
        return FailureError(reasons.REASON_ALGORITHM_NOT_ALLOWED)
    kid = GOOD.get((name, request.signature))
    if kid is None:
        return FailureError(reasons.REASON_SIGNATURE_INVALID)
    response = pb.VerifyResponse()
    response.key.kid, response.key.algorithm = kid, request.algorithm
    return response


def refused(reason: str, given: Any, **rule) -> None:
    with pytest.raises(capsign.InvalidSignature) as caught:
        verify(given, **rule)
    assert caught.value.reason == reason
    assert caught.value.advice


def test_either_takes_the_one_that_is_known_and_good():
    assert verify(BOTH) == "kid-old"
    assert verify(BOTH, knows={"ML-DSA-65"}) == "kid-new"
    assert verify(replace(BOTH, value=b"bad")) == "kid-new"
    assert verify(b"old", algorithm="ES256") == "kid-old"
    refused("SIGNATURE_INVALID", replace(BOTH, value=b"bad", others=(made("ML-DSA-65", b"bad"),)))
    refused("SIGNATURE_INVALID", replace(BOTH, value=b"bad"), knows={"ES256"})
    with pytest.raises(capsign.Refused, match="ALGORITHM_NOT_ALLOWED"):
        verify(BOTH, knows=set())


def test_both_means_both():
    assert verify(BOTH, rule="both") == "kid-old"
    assert verify([NEW, OLD], rule="both") == "kid-new"
    assert verify([("ES256", b"old"), ("ES256", b"v2")], rule="both") == "kid-old"
    refused("SIGNATURE_INVALID", replace(BOTH, others=(made("ML-DSA-65", b"bad"),)), rule="both")
    refused("SIGNATURE_INVALID", replace(BOTH, value=b"bad"), rule="both")


@pytest.mark.parametrize(
    "given",
    [OLD, NEW, [OLD], replace(OLD, others=(OLD,)), [("ES256", b"old"), ("ES256", b"old")]],
    ids=["the second is gone", "the first is gone", "one of a list", "twice the same", "as bytes"],
)
def test_a_second_signature_that_was_stripped_is_missed(given):
    """I10: who takes the second signature away, or puts the first in its place, gains nothing
    where the verifier asks for both.
    """
    refused("SIGNATURE_MISSING", given, rule="both")


def test_a_required_algorithm_cannot_be_replaced_by_another_key_of_the_old_one():
    """I10: two good signatures of the algorithm that is to be left behind are none of the new."""
    assert verify(BOTH, required=["ML-DSA-65"]) == "kid-old"
    assert verify(NEW, required=["ML-DSA-65"]) == "kid-new"
    assert verify(BOTH, required=["ML-DSA-65", "ES256"]) == "kid-old"
    two_old = [("ES256", b"old"), ("ES256", b"v2")]
    refused("SIGNATURE_MISSING", two_old, rule="both", required=["ML-DSA-65"])
    refused("SIGNATURE_MISSING", OLD, required=["ML-DSA-65"])
    bad = replace(BOTH, others=(made("ML-DSA-65", b"bad"),))
    refused("SIGNATURE_INVALID", bad, required=["ML-DSA-65"])


def test_what_is_no_rule_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="rule"):
        verify(OLD, rule="all")
    with pytest.raises(ValueError, match="one signature, or 2"):
        verify([OLD, NEW, OLD])
    with pytest.raises(ValueError, match="algorithm="):
        verify(b"old")
    with pytest.raises(TypeError):
        verify(OLD, required="ML-DSA-65")
