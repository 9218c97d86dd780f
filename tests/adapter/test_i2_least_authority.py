"""I2: a signature leaves the adapter only under a handle that names that workload, key, purpose,
algorithm and context, and that has neither expired nor been revoked.

In small random worlds everything that can be asked for is asked for, and what is let through must
be exactly what a model, written apart from the code, says may be done. Then the decision is broken
in one place at a time, and the same check must see it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_adapter.decide import admission, biscuits
from capsign_adapter.decide.admission import admit
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as why
from hypothesis import Phase, given, settings
from support.authority import LATER, MINT, UNIVERSE, VERIFIER, World, admitted, worlds
from support.handles import KEY_HASH, NOW, ORDERS, events, suffix


def exactly_what_may_be_done(world: World) -> None:
    assert admitted(admit, world) == {asked for asked in UNIVERSE if world.may(*asked)}


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_exactly_what_handle_policy_and_agent_allow_is_let_through(world):
    exactly_what_may_be_done(world)


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_narrowing_never_widens(world):
    assert admitted(admit, world) <= admitted(admit, replace(world, blocks=()))
    for kept in range(len(world.blocks)):
        assert admitted(admit, world) <= admitted(admit, replace(world, blocks=world.blocks[:kept]))


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_what_the_caller_leaves_out_becomes_something_that_may_be_done(world):
    handle = world.handle()
    for algorithm, protocol, role, version, transcript in UNIVERSE:
        for left_out in (
            ("", role, version),
            (protocol, "", version),
            (protocol, role, ""),
            ("", "", ""),
        ):
            asked = suffix(*left_out, transcript)
            try:
                found = admit(handle, world.policy, world.revoked, algorithm, asked, LATER, 30_000)
            except FailureError:
                continue
            settled = (found.protocol, found.role, found.protocol_version)
            assert world.may(algorithm, *settled, transcript)
            assert all(given in {"", value} for given, value in zip(left_out, settled, strict=True))


def test_another_workload_or_another_certificate_key_is_turned_away_whatever_it_asks():
    token = MINT.mint(events())
    VERIFIER.verify(token, ORDERS, KEY_HASH, NOW, 0)
    for workload, key_hash in ((ORDERS + "2", KEY_HASH), (ORDERS, bytes(32))):
        with pytest.raises(FailureError) as caught:
            VERIFIER.verify(token, workload, key_hash, NOW, 0)
        assert caught.value.reason == why.REASON_HANDLE_STOLEN


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_the_checks_inside_the_token_hold_even_where_admission_forgets_the_handle(world):
    # Two locks: were admission to read contexts and algorithms from the policy alone, the token's
    # own checks still bind.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "_common", lambda minted, now: now)
        exactly_what_may_be_done(world)


BROKEN = {
    "the policy's contexts are forgotten": (admission, "_common", lambda minted, now: minted),
    "the policy's algorithms are forgotten": (admission, "_algorithm_allowed", lambda *each: None),
    "the policy's shorter life is forgotten": (admission, "_within_life", lambda *each: None),
    "a grant that is gone still counts": (
        admission,
        "_grant_in_force",
        lambda capability, policy: policy.grants[0],
    ),
    "the transcript rule is forgotten": (admission, "check_transcript", lambda *each: None),
    "revocations are forgotten": (
        admission.RevocationIndex,
        "of_capability",
        lambda self, capability: None,
    ),
    "narrowing is forgotten": (biscuits.Verified, "require", lambda self, operation, now_ms: None),
    "a narrowed verdict is remembered too broadly": (
        biscuits.Verified,
        "require",
        lambda self, operation, now_ms: (
            self.allowed or (self.evaluate(operation, now_ms), setattr(self, "allowed", {1}))
        ),
    ),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_the_check_above_sees_a_decision_that_is_broken(defect, monkeypatch):
    monkeypatch.setattr(*BROKEN[defect])

    # Without shrinking: what matters is that it is seen. Derandomized: what is seen today is seen
    # tomorrow.
    @settings(
        max_examples=400, deadline=None, database=None, phases=[Phase.generate], derandomize=True
    )
    @given(worlds())
    def look(world):
        exactly_what_may_be_done(world)

    with pytest.raises(AssertionError):
        look()
