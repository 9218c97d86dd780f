from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from capsign_agent.handles.rules import REMEMBERED, Rule
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from capsign_wire.types.v1 import signing_pb2 as types
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from(["", "jwt", "tls", "issuer", "client", "1", "2"])


def rule(transcript: int = types.TRANSCRIPT_RULE_ALLOWED, role: str = "", **more: Any) -> Rule:
    context = types.ContextRule(transcript=transcript)
    context.protocols.add(protocol="jwt", roles=more.get("roles", ["issuer"]), versions=["1"])
    if more.get("two"):
        context.protocols.add(protocol="tls", roles=["client", "server"], versions=["1", "2"])
    return Rule("tokens", frozenset({alg.ALGORITHM_ES256}), context, role)


def reason(
    one: Rule, purpose: str = "", algorithm: int = alg.ALGORITHM_ES256, **suffix: Any
) -> int:
    with pytest.raises(FailureError) as caught:
        one.decide(purpose, algorithm, types.ContextSuffix(**suffix))
    return caught.value.reason


def test_what_is_pinned_may_be_left_out() -> None:
    full = rule().decide("", alg.ALGORITHM_ES256, types.ContextSuffix())
    assert (full.protocol, full.role, full.protocol_version) == ("jwt", "issuer", "1")


def test_what_is_not_pinned_must_be_named() -> None:
    assert reason(rule(two=True)) == fail.REASON_CONTEXT_NOT_ALLOWED
    assert reason(rule(two=True), protocol="tls", role="client") == fail.REASON_CONTEXT_NOT_ALLOWED


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"purpose": "other"}, fail.REASON_PURPOSE_NOT_ALLOWED),
        ({"algorithm": alg.ALGORITHM_HS256}, fail.REASON_ALGORITHM_NOT_ALLOWED),
        ({"protocol": "tls"}, fail.REASON_CONTEXT_NOT_ALLOWED),
        ({"role": "verifier"}, fail.REASON_CONTEXT_NOT_ALLOWED),
        ({"protocol_version": "2"}, fail.REASON_CONTEXT_NOT_ALLOWED),
    ],
)
def test_what_the_rule_does_not_name_is_refused(asked: dict[str, Any], expected: int) -> None:
    assert reason(rule(), **asked) == expected


@pytest.mark.parametrize("state", types.TranscriptRule.values())
@pytest.mark.parametrize("given_one", [False, True])
def test_every_cell_of_the_transcript_rule(
    state: types.TranscriptRule.ValueType, given_one: bool
) -> None:
    suffix = types.ContextSuffix(transcript=bytes(32) if given_one else b"")
    good = {
        types.TRANSCRIPT_RULE_UNSPECIFIED: not given_one,
        types.TRANSCRIPT_RULE_FORBIDDEN: not given_one,
        types.TRANSCRIPT_RULE_ALLOWED: True,
        types.TRANSCRIPT_RULE_REQUIRED: given_one,
    }[state]
    if good:
        assert (
            rule(state).decide("tokens", alg.ALGORITHM_ES256, suffix).transcript
            == suffix.transcript
        )
    else:
        assert reason(rule(state), transcript=suffix.transcript) == fail.REASON_CONTEXT_NOT_ALLOWED


def test_a_narrowed_role_is_filled_in_and_no_other_passes() -> None:
    narrowed = rule(role="issuer", roles=["issuer", "verifier"])
    assert narrowed.decide("", alg.ALGORITHM_ES256, types.ContextSuffix()).role == "issuer"
    assert reason(narrowed, role="verifier") == fail.REASON_CONTEXT_NOT_ALLOWED
    assert reason(rule(role="verifier")) == fail.REASON_CONTEXT_NOT_ALLOWED


@given(NAMES, NAMES, NAMES)
def test_what_passes_lies_within_the_rule_and_changes_nothing_that_was_asked(
    protocol: str, role: str, version: str
) -> None:
    asked = types.ContextSuffix(protocol=protocol, role=role, protocol_version=version)
    try:
        full = rule(two=True).decide("", alg.ALGORITHM_ES256, asked)
    except FailureError as error:
        assert error.reason == fail.REASON_CONTEXT_NOT_ALLOWED  # noqa: PT017 - both ways are right, for different inputs
        return
    allowed = {"jwt": (["issuer"], ["1"]), "tls": (["client", "server"], ["1", "2"])}[full.protocol]
    assert full.role in allowed[0]
    assert full.protocol_version in allowed[1]
    for name in ("protocol", "role", "protocol_version"):
        assert getattr(asked, name) in {"", getattr(full, name)}


ASKED = st.builds(
    types.ContextSuffix,
    protocol=st.sampled_from(["", "jwt", "tls"]),
    role=st.sampled_from(["", "client", "server"]),
    protocol_version=st.sampled_from(["", "1", "2"]),
    transcript=st.sampled_from([b"", b"t" * 32, b"u" * 32]),
)


def outcome(ask: Callable[..., Any], *call: Any) -> Any:
    try:
        return ask(*call)
    except FailureError as refused:
        return refused.reason


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "tokens", "other"]),
            st.sampled_from([alg.ALGORITHM_ES256, alg.ALGORITHM_HS256]),
            ASKED,
        ),
        max_size=30,
    )
)
def test_what_is_remembered_is_what_would_be_decided(
    calls: list[tuple[str, Any, types.ContextSuffix]],
) -> None:
    """In whatever order: what one call was allowed must never become what another one, which
    differs in anything, is given.
    """
    one = rule(two=True, roles=["issuer", "client"])
    for purpose, algorithm, asked in calls:
        assert outcome(one.full_context, purpose, algorithm, asked) == outcome(
            lambda *call: (
                one.decide(*call),
                one.decide(*call).SerializeToString(deterministic=True),
            ),
            purpose,
            algorithm,
            asked,
        )


def test_a_rule_remembers_within_bounds_and_no_transcript() -> None:
    context = types.ContextRule(transcript=types.TRANSCRIPT_RULE_ALLOWED)
    versions = [str(number) for number in range(REMEMBERED + 2)]
    context.protocols.add(protocol="jwt", roles=["issuer"], versions=versions)
    one = Rule("tokens", frozenset({alg.ALGORITHM_ES256}), context)
    for number in range(5):
        one.full_context(
            "",
            alg.ALGORITHM_ES256,
            types.ContextSuffix(protocol_version="1", transcript=b"%d" % number * 32),
        )
    assert one.remembered == 0
    remembered = []
    for version in versions:
        one.full_context("", alg.ALGORITHM_ES256, types.ContextSuffix(protocol_version=version))
        remembered.append(one.remembered)
    assert remembered == [*range(1, REMEMBERED + 1), 1, 2]


@pytest.mark.parametrize(
    "other",
    [
        ("other", alg.ALGORITHM_ES256, ("tls", "client", "1")),
        ("tokens", alg.ALGORITHM_HS256, ("tls", "client", "1")),
        ("tokens", alg.ALGORITHM_ES256, ("jwt", "client", "1")),
        ("tokens", alg.ALGORITHM_ES256, ("tls", "server", "1")),
        ("tokens", alg.ALGORITHM_ES256, ("tls", "client", "2")),
    ],
    ids=["purpose", "algorithm", "protocol", "role", "version"],
)
def test_each_part_of_a_call_counts_for_what_is_remembered(
    other: tuple[str, Any, tuple[str, str, str]],
) -> None:
    one = rule(two=True)

    def call(purpose: str, algorithm: Any, named: tuple[str, str, str]) -> Any:
        asked = types.ContextSuffix(protocol=named[0], role=named[1], protocol_version=named[2])
        return outcome(one.full_context, purpose, algorithm, asked)

    first = call("tokens", alg.ALGORITHM_ES256, ("tls", "client", "1"))
    assert call("tokens", alg.ALGORITHM_ES256, ("tls", "client", "1")) == first
    assert call(*other) != first
