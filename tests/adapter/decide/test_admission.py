"""Admission, case by case: which refusal, which field, which words."""

from __future__ import annotations

from typing import Any

import pytest
from capsign_adapter.decide.admission import admit, custody_ok
from capsign_adapter.decide.biscuits import Mint, Verifier
from capsign_adapter.decide.capability import Capability, capability_for
from capsign_adapter.decide.revoked import RevocationIndex
from capsign_adapter.model.control import Revocation
from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.context_rule import ProtocolRule
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as why
from support.handles import (
    ED25519,
    ES256,
    ES384,
    KEY_HASH,
    NOW,
    ORDERS,
    SERIAL,
    events,
    example,
    example_with,
    suffix,
)

MINT = Mint(bytes(32))
VERIFIER = Verifier(MINT.public_key)
NOTHING = RevocationIndex(0)
SEND = suffix("webhook", "sender", "1")


def ask(
    capability=None,
    policy=None,
    revoked=NOTHING,
    algorithm=ES256,
    context=SEND,
    now_ms=NOW,
    skew_ms=0,
):
    handle = VERIFIER.read(MINT.mint(capability or events()))
    return admit(handle, policy or example(), revoked, algorithm, context, now_ms, skew_ms)


def refused(reason, field="", **named):
    with pytest.raises(FailureError) as caught:
        ask(**named)
    assert (why.Reason.Name(caught.value.reason), caught.value.field) == (
        why.Reason.Name(reason),
        field,
    )
    return caught.value.detail


def tokens() -> Capability:
    """A capability whose context is pinned whole."""
    return capability_for(example().grant("orders-tokens"), ORDERS, KEY_HASH, SERIAL, NOW)


@pytest.mark.parametrize(
    "given", [("", "", ""), ("jwt", "", ""), ("", "issuer", "1"), ("jwt", "issuer", "1")]
)
def test_what_is_pinned_may_be_left_out(given):
    found = ask(tokens(), context=suffix(*given))
    assert (found.protocol, found.role, found.protocol_version, found.transcript) == (
        "jwt",
        "issuer",
        "1",
        b"",
    )
    assert (found.rate_per_second, found.burst, found.max_uses, found.min_custody) == (
        5000,
        10000,
        0,
        1,
    )


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (("oidc", "", ""), "protocol"),
        (("", "holder", ""), "role"),
        (("", "", "2"), "protocol_version"),
        (("JWT", "", ""), "protocol"),
    ],
)
def test_what_is_pinned_may_not_be_changed(given, field):
    assert "is not allowed; allowed:" in refused(
        why.REASON_CONTEXT_NOT_ALLOWED,
        f"context.{field}",
        capability=tokens(),
        context=suffix(*given),
    )


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (("", "", ""), "protocol"),
        (("webhook", "", "1"), "role"),
        (("webhook", "sender", ""), "protocol_version"),
    ],
)
def test_with_several_allowed_one_must_be_named(given, field):
    detail = refused(why.REASON_CONTEXT_NOT_ALLOWED, f"context.{field}", context=suffix(*given))
    assert f"Name the {field}, because several are allowed:" in detail


def test_a_role_of_one_protocol_is_none_of_another():
    refused(why.REASON_CONTEXT_NOT_ALLOWED, "context.role", context=suffix("outbox", "sender", "1"))


@pytest.mark.parametrize(
    ("rule", "good", "bad"), [(0, b"", bytes(32)), (1, b"", bytes(32)), (3, bytes(32), b"")]
)
def test_transcripts(rule, good, bad):
    # The example allows them; the handle is stricter.
    assert (
        ask(events(transcript=rule), context=suffix("webhook", "sender", "1", good)).transcript
        == good
    )
    context = suffix("webhook", "sender", "1", bad)
    refused(
        why.REASON_CONTEXT_NOT_ALLOWED,
        "context.transcript",
        capability=events(transcript=rule),
        context=context,
    )


def test_a_handle_that_requires_a_transcript_is_of_no_use_once_policy_forbids_it():
    policy = example_with("transcript: allowed", "transcript: forbidden")
    for transcript in (b"", bytes(32)):
        context = suffix("webhook", "sender", "1", transcript)
        refused(
            why.REASON_CONTEXT_NOT_ALLOWED,
            "context.transcript",
            capability=events(transcript=3),
            policy=policy,
            context=context,
        )


@pytest.mark.parametrize("length", [1, 31, 33])
def test_a_transcript_of_another_length_is_malformed(length):
    refused(
        why.REASON_INPUT_MALFORMED,
        "context.transcript",
        context=suffix("webhook", "sender", "1", bytes(length)),
    )


@pytest.mark.parametrize("algorithm", [ES384, 0, 99, -1])
def test_an_algorithm_that_the_handle_does_not_name(algorithm):
    detail = refused(why.REASON_ALGORITHM_NOT_ALLOWED, "algorithm", algorithm=algorithm)
    assert "is not one of the handle's: ES256, Ed25519, HS256, ML-DSA-65." in detail


def test_the_floor_may_rise_after_a_handle_was_minted():
    policy = example()
    object.__setattr__(policy, "floor_bits", 192)
    assert "the policy's floor is 192" in refused(
        why.REASON_ALGORITHM_NOT_ALLOWED, "algorithm", policy=policy
    )
    assert ask(policy=policy, algorithm=alg.ALGORITHM_HS256)


def test_policy_wins_over_an_older_handle():
    narrower = example_with(
        "algorithms: [Ed25519, ES256, HS256, ML-DSA-65]\n    protocols",
        "algorithms: [ES256]\n    protocols",
    )
    assert "The policy no longer allows Ed25519" in refused(
        why.REASON_ALGORITHM_NOT_ALLOWED, "algorithm", policy=narrower, algorithm=ED25519
    )
    renamed = example_with("name: orders-events", "name: other")
    assert "no longer gives this grant" in refused(why.REASON_HANDLE_REVOKED, policy=renamed)
    moved = example_with("purpose: event", "purpose: other")
    refused(why.REASON_PURPOSE_NOT_ALLOWED, policy=moved)
    shorter = example_with("transcript: allowed", "ttl: 1m")
    assert ask(policy=shorter, now_ms=NOW + 59_999)
    assert "shorter life" in refused(why.REASON_HANDLE_EXPIRED, policy=shorter, now_ms=NOW + 60_000)
    fewer = example_with("roles: [sender, relay]", "roles: [relay]")
    refused(why.REASON_CONTEXT_NOT_ALLOWED, "context.role", policy=fewer)


def test_the_wider_policy_gives_an_older_handle_nothing():
    wider = example_with("roles: [sender, relay]", "roles: [sender, relay, root]")
    refused(
        why.REASON_CONTEXT_NOT_ALLOWED,
        "context.role",
        policy=wider,
        context=suffix("webhook", "root", "1"),
    )
    pinned = events(protocols=(ProtocolRule("webhook", ("sender",), ("1",)),))
    assert ask(pinned, context=suffix()).role == "sender"


def test_the_stricter_limit_of_handle_and_policy_holds():
    found = ask(events(rate_per_second=7, burst=0, max_uses=9, min_custody=2))
    assert (found.rate_per_second, found.burst, found.max_uses, found.min_custody) == (
        7,
        5000,
        9,
        2,
    )
    found = ask(events(rate_per_second=9000, burst=9000))
    assert (found.rate_per_second, found.burst) == (5000, 5000)


def test_life():
    end = events().expires_ms
    assert ask(now_ms=end - 1)
    assert "expired 2 s ago by the adapter's clock" in refused(
        why.REASON_HANDLE_EXPIRED, now_ms=end + 2000, skew_ms=30_000
    )
    assert ask(now_ms=NOW - 30_000, skew_ms=30_000)
    refused(why.REASON_HANDLE_EXPIRED, now_ms=NOW - 30_001, skew_ms=30_000)


def test_revocation_is_asked_first():
    revoked = RevocationIndex(3, [Revocation(3, admin_pb2.REVOCATION_KIND_HANDLE, SERIAL.hex(), 0)])
    assert "This handle was revoked at epoch 3" in refused(
        why.REASON_HANDLE_REVOKED, revoked=revoked, algorithm=99, now_ms=events().expires_ms
    )


def test_custody():
    memory, derived, direct = (
        alg.CUSTODY_CLASS_ADAPTER_MEMORY,
        alg.CUSTODY_CLASS_HSM_DERIVED,
        alg.CUSTODY_CLASS_HSM_DIRECT,
    )
    classes = (memory, derived, direct)
    for minimum in classes:
        for offered in classes:
            if offered >= minimum:
                custody_ok(minimum, offered)
            else:
                with pytest.raises(FailureError, match="CUSTODY_TOO_WEAK"):
                    custody_ok(minimum, offered)
    for unknown in (0, 4, 99):
        with pytest.raises(FailureError, match="would sign as none"):
            custody_ok(memory, unknown)


def test_a_capability_is_only_made_for_a_workload_that_the_grant_names():
    with pytest.raises(ValueError, match="does not name"):
        capability_for(example().grant("orders-events"), ORDERS + "2", KEY_HASH, SERIAL, NOW)
    faults: list[dict[str, Any]] = [
        {"serial": b""},
        {"cert_key_hash": b""},
        {"algorithms": frozenset()},
        {"protocols": ()},
        {"expires_ms": NOW},
    ]
    for wrong in faults:
        with pytest.raises(ValueError, match=r"32|at least one"):
            events(**wrong)
