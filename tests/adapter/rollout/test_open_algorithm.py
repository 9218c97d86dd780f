"""Calls that leave the algorithm open: what signs them, what their intents are bound to, and what
is refused (I5, I10).
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.model.rollouts import CanaryStep
from capsign_agent.sign import verify
from capsign_agent.sign.public_keys import Known
from capsign_evidence.leaf_reader import Refused, SignedTwice, decode
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import OTHER, POLICY, AdapterRig, peer
from support.rollout_rig import ED25519, Clock, RolloutRig
from support.rollouts import ML_DSA, PLAN

S = RolloutStage
WIDE = replace(PLAN, canary=(CanaryStep(100, 60_000),))
HS256 = algorithms_pb2.ALGORITHM_HS256
ISSUER = signing_pb2.ContextSuffix(role="issuer")


@pytest.fixture
def rollouts(rig):
    return RolloutRig(rig, Clock(), WIDE)


class Caller:
    """A workload whose agent makes inputs for the keys that it was told."""

    def __init__(self, rig, who=None, handle=b"") -> None:
        self.rig, self.who = rig, who or peer()
        self.handle = handle or rig.handle()
        self.known = self.asked()

    def asked(self) -> list[signing_pb2.PublicKey]:
        """The keys that sign now, where the algorithm is open."""
        found, kids, *_ = self.rig.keys.with_signing(self.who, self.handle, 0, ISSUER)
        assert [key.kid for key, _ in found] == kids
        return [key for key, _ in found]

    def group(self, message: bytes = b"m", intent: bytes = b"", **changes) -> pb.SignGroup:
        keys = self.known
        told = pb.GetPublicKeysResponse(keys=keys, signing_kids=[key.kid for key in keys])
        first, second = Known(told, 0.0).inputs()
        item = pb.SignItem(
            intent_id=intent or new_intent_id(),
            input=first.of(message),
            second_input=second.of(message) if second is not None else b"",
            message_sha256=sha256(message).digest(),
        )
        made = pb.SignGroup(
            open_algorithm=True,
            context=ISSUER,
            expected_kid=first.kid,
            second_kid=second.kid if second is not None else "",
            items=[item],
        )
        for name, value in changes.items():
            if name in pb.SignItem.DESCRIPTOR.fields_by_name:
                setattr(made.items[0], name, value)
            else:
                setattr(made, name, value)
        return made

    def send(self, group: pb.SignGroup) -> signing_pb2.SignedGroup:
        request = pb.SignRequest(batch_id=1, handles=[self.handle], groups=[group])
        ticket = self.rig.barrier.ticket(lambda: None)
        return self.rig.pipeline.run(self.who, request, ticket).groups[0]

    def sign(self, message: bytes = b"m", intent: bytes = b"", **changes):
        """The signatures of one call, by algorithm; each verifies over the message."""
        self.known = self.asked()
        told = self.send(self.group(message, intent, **changes))
        (item,) = told.items
        assert item.signatures, item.failure
        made = {}
        for one in item.signatures:
            by = told.signed_by[one.key]
            made[by.algorithm] = one.value
            key = next((key for key in self.known if key.kid == by.kid), None)
            if key is not None:
                signed = verify.Signed(message, None, one.value)
                assert verify.verifies(by.algorithm, key.spki, signed)
        return made

    def refused(self, group: pb.SignGroup) -> int:
        (item,) = self.send(group).items
        assert not item.signatures
        return item.failure.reason


def test_the_rollout_says_what_an_open_call_is_signed_with(rollouts):
    caller = Caller(rollouts.rig)
    assert set(caller.sign()) == {ED25519}
    rollouts.start(ML_DSA)
    rollouts.until(S.CANARY)
    assert set(caller.sign()) == {ML_DSA}, "it is in the canary"
    rollouts.until(S.DUAL_SIGN)
    assert list(caller.sign()) == [ML_DSA, ED25519]
    rollouts.until(S.DONE)
    assert set(caller.sign()) == {ML_DSA}
    other = Caller(rollouts.rig, peer(OTHER), rollouts.rig.handle("others", peer(OTHER)))
    assert set(other.sign()) == {ED25519}, "its grant does not allow the new one"


def test_open_is_one_that_the_grant_allows(tmp_path):
    """I10: nobody named an algorithm, so nobody but the policy says how weak it may be. The key has
    others, and would sign with Ed25519 where all may.
    """
    several = "algorithms: [Ed25519, ES256, HS256, ML-DSA-65]\n    protocols"
    assert several in POLICY
    text = POLICY.replace(several, "algorithms: [ML-DSA-65]\n    protocols", 1)
    rig = AdapterRig(tmp_path / "narrow", text)
    assert set(Caller(rig).sign()) == {ML_DSA}
    rig.close()


def test_a_second_signature_is_by_an_algorithm_that_the_grant_allows(rig):
    """I10, I2: both take the message, so a call that names the first would have had the second."""
    rollouts = RolloutRig(rig, Clock(), WIDE)
    rollouts.start(HS256)
    rollouts.until(S.DUAL_SIGN)
    (item,) = rig.sign(b"m", algorithm=ED25519)
    assert len(item.signatures) == 2
    handle, who = rig.handle("others", peer(OTHER)), peer(OTHER)
    (item,) = rig.sign(b"m", algorithm=ED25519, who=who, handle=handle)
    assert len(item.signatures) == 1, "its grant has no HS256"


def test_one_leaf_names_the_signatures_of_two_algorithms(rollouts):
    rollouts.start(ML_DSA)
    rollouts.until(S.DUAL_SIGN)
    caller = Caller(rollouts.rig)
    (item,) = caller.send(caller.group()).items
    entry = decode(rollouts.rig.entries()[item.leaf_index])
    assert isinstance(entry, SignedTwice)
    assert (entry.group.algorithm, entry.second.algorithm) == (ML_DSA, ED25519)
    hashes = [sha256(one.value).digest() for one in item.signatures]
    assert hashes == [entry.signature_hash, entry.second_signature_hash]


def test_an_intent_is_the_same_before_and_after_its_algorithm_moved(rollouts):
    """What came in: a call whose answer was lost, sent again when the rollout had gone on. Its
    inputs are others by then; its message is not, and so it gets the bytes of the first time.
    """
    caller, intent = Caller(rollouts.rig), new_intent_id()
    first = caller.sign(b"m", intent)
    rollouts.start(ML_DSA)
    for stage in (S.CANARY, S.DUAL_SIGN, S.DONE):
        rollouts.until(stage)
        assert caller.sign(b"m", intent) == first
    assert caller.refused(caller.group(b"other", intent)) == reasons.REASON_INTENT_CONFLICT
    (named,) = rollouts.rig.sign(b"m", intents=[intent])
    assert named.failure.reason == reasons.REASON_INTENT_CONFLICT


@pytest.mark.parametrize(
    "changes",
    [
        {"open_algorithm": False},
        {"algorithm": ED25519},
        {"expected_kid": ""},
        {"message_sha256": b""},
        {"message_sha256": sha256(b"another").digest()},
        {"input": b"another"},
    ],
    ids=[
        "its algorithm was stripped and nothing says that it is open",
        "it is open and names one",
        "it does not say for which key",
        "it does not say for which message",
        "its digest is of another message",
        "its input is another message",
    ],
)
def test_what_is_not_whole_is_refused_and_recorded(rollouts, changes):
    caller = Caller(rollouts.rig)
    assert caller.refused(caller.group(**changes)) == reasons.REASON_INPUT_MALFORMED
    last = decode(rollouts.rig.entries()[-1])
    assert isinstance(last, Refused)
    assert last.reason == reasons.REASON_INPUT_MALFORMED


def test_a_second_input_of_another_message_is_refused_where_it_can_be_told(rollouts):
    rollouts.start(ML_DSA)
    rollouts.until(S.DUAL_SIGN)
    caller = Caller(rollouts.rig)
    malformed = reasons.REASON_INPUT_MALFORMED
    assert caller.refused(caller.group(second_input=b"another")) == malformed
    assert caller.refused(caller.group(input=b"short")) == malformed


def test_inputs_for_keys_that_do_not_sign_any_more_are_not_signed(rollouts):
    caller = Caller(rollouts.rig)
    stale = caller.group()
    rollouts.start(ML_DSA)
    rollouts.until(S.CANARY)
    superseded = reasons.REASON_KEY_SUPERSEDED
    assert caller.refused(stale) == superseded
    caller.known = caller.asked()
    alone = caller.group()
    rollouts.until(S.DUAL_SIGN)
    assert caller.refused(alone) == superseded, "both sign, and it has inputs for one"
    caller.known = caller.asked()
    assert caller.refused(caller.group(second_kid=alone.expected_kid)) == superseded
    assert caller.send(caller.group()).items[0].signatures


def test_a_named_algorithm_stays_what_it_is(rollouts):
    """I10, an older agent or client: it names one, knows of no second input, and gets that one at
    each stage.
    """
    rollouts.start(ML_DSA)
    for stage in (S.CANARY, S.DUAL_SIGN, S.DONE):
        rollouts.until(stage)
        (item,) = rollouts.rig.sign(b"m", algorithm=ED25519)
        entry = decode(rollouts.rig.entries()[item.leaf_index])
        assert (len(item.signatures), entry.group.algorithm) == (1, ED25519)


def test_two_versions_sign_mu_of_their_own(rollouts):
    """ML-DSA's mu depends on the public key: a new version needs an input of its own."""
    rollouts.start()
    rollouts.until(S.DUAL_SIGN)
    rig = rollouts.rig
    found, kids, *_ = rig.keys.with_signing(peer(), rig.handle(), ML_DSA, ISSUER)
    told = pb.GetPublicKeysResponse(keys=[key for key, _ in found], signing_kids=kids)
    first, second = Known(told, 0.0).inputs()
    caller = Caller(rig)
    group = caller.group(
        open_algorithm=False,
        algorithm=ML_DSA,
        expected_kid=first.kid,
        second_kid=second.kid,
        input=first.of(b"m"),
        second_input=second.of(b"m"),
        message_sha256=b"",
    )
    told = caller.send(group)
    keys = {key.kid: key for key, _ in found}
    assert len(told.items[0].signatures) == 2
    for one in told.items[0].signatures:
        signed = verify.Signed(b"m", None, one.value)
        assert verify.verifies(ML_DSA, keys[told.signed_by[one.key].kid].spki, signed)
    group.second_kid, group.items[0].intent_id = "", new_intent_id()
    assert len(caller.send(group).items[0].signatures) == 1
