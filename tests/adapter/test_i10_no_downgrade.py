"""I10: no older peer, no rollback, no replay and nobody on the way gets a weaker algorithm, policy
or rule than is in force.

Each attempt is made as it stands; then what refuses it is broken, one lock after another until
none is left, and the same attempt must be seen to succeed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import capsign
import pytest
from capsign import signature_rule
from capsign.results import PublicKey, Signature, SignedBy
from capsign.signature_rule import Signatures
from capsign_adapter.decide import admission, approvals, policy_strength
from capsign_adapter.decide import policy_document as doc
from capsign_adapter.decide.policy_change import Names, Strength
from capsign_adapter.decide.signing_versions import signing_with
from capsign_adapter.model import lifecycle
from capsign_adapter.model.lifecycle import (
    PolicyEvent,
    PolicyState,
    ProposalEvent,
    ProposalState,
    RolloutStage,
)
from capsign_adapter.sign import admit, open_calls
from capsign_adapter.store import policies
from capsign_adapter.store.executors import Executors
from capsign_agent.sign import admission as agent_admission
from capsign_agent.sign.group_work import GroupWork
from capsign_evidence.leaf_reader import Signed, decode
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as why
from support.adapter_rig import OPERATOR, POLICY, AdapterRig
from support.policy_calls import Reviewers
from support.replica import RunningReplica
from support.rollout_rig import ED25519, KEY, Clock, RolloutRig
from support.rollouts import ES256, ML_DSA

S = RolloutStage
MU = bytes(64)
"""An input of ML-DSA, external mu, and of Ed25519, a message."""


def an_older_client(directory: Path) -> None:
    """It knows of no open algorithm. Its agent lets no call through that names none, and were one
    to come through, no adapter would sign it.
    """
    unnamed = agent_pb2.SignGroup(items=[agent_pb2.SignItem(intent_id=bytes(16), message=b"m")])
    try:
        agent_admission.demand_algorithm(GroupWork(unnamed, unnamed.items))
    except FailureError:
        return
    an_algorithm_that_was_stripped(directory)


def an_older_agent(directory: Path) -> None:
    """It names the algorithm of its application, and gets that one or none while the key goes back
    to one that is older.
    """
    rig = AdapterRig(directory / "older")
    rollouts = RolloutRig(rig, Clock())
    rollouts.start(ML_DSA)
    rollouts.until(S.DONE)
    rollouts.rollouts.undo(OPERATOR, *KEY, 0)
    for stage in (S.CANARY, S.DUAL_SIGN, S.DONE):
        rollouts.until(stage)
        handle = rig.handle()
        (item,) = rig.sign(MU, algorithm=ML_DSA, handle=handle)
        assert item.signatures
        entry = decode(rig.entries()[item.leaf_index])
        assert isinstance(entry, Signed)
        assert entry.group.algorithm == ML_DSA, stage
    rig.close()


def a_policy_that_is_rolled_back(directory: Path) -> None:
    """The document of before is compared as any other: it waits for an approver, and until then a
    handle from its time signs with nothing that is not allowed any more.
    """
    several = "algorithms: [Ed25519, ES256, HS256, ML-DSA-65]\n    protocols"
    assert several in POLICY
    narrow = POLICY.replace(several, "algorithms: [Ed25519, ML-DSA-65]\n    protocols", 1)
    with ExitStack() as ends:
        people = reviewers(directory, ends)
        rig = people.replica.rig
        handle = rig.handle()
        assert people.propose(narrow).epoch
        back = people.propose(POLICY)
        (item,) = rig.sign(bytes(32), algorithm=ES256, handle=handle)
        assert not item.signatures, "signed with what the policy forbids"
        assert (bool(back.proposal_id), people.in_force()) == (True, 2), "in force unseen"


def a_replayed_approval(directory: Path) -> None:
    """It was good once. What was strengthened since is not weakened by it again."""
    with ExitStack() as ends:
        people = reviewers(directory, ends)
        weaker = people.propose(POLICY.replace("clock_skew: 30s", "clock_skew: 40s"))
        people.ask("approve", weaker.proposal_id)
        assert people.in_force() == 2
        assert people.propose(POLICY.replace("clock_skew: 30s", "clock_skew: 20s")).epoch
        people.ask("approve", weaker.proposal_id)
        assert people.in_force() == 3, "the approval served twice"


def an_algorithm_that_was_stripped(directory: Path) -> None:
    """A call that lost its algorithm on the way is none that leaves it open."""
    rig = AdapterRig(directory / "stripped")
    (item,) = rig.sign(b"m", algorithm=0)
    assert not item.signatures, "signed with whatever the key has"
    assert item.failure.reason == why.REASON_INPUT_MALFORMED
    rig.close()


def a_second_signature_that_was_stripped(directory: Path) -> None:
    """Who asks for both does not take one, nor one of them twice, nor two of the old algorithm."""
    old, key = made("ES256"), PublicKey("kid-old", "ES256", b"", 1, "active", b"", b"", None)
    given: dict[str, tuple[Any, frozenset[str]]] = {
        "one is gone": (old, frozenset()),
        "twice the same": (replace(old, others=(old,)), frozenset()),
        "another of the old": (replace(old, others=(made("ES256"),)), frozenset({"ML-DSA-65"})),
    }
    for what, (signatures, required) in given.items():
        with pytest.raises(capsign.InvalidSignature) as caught:
            Signatures(signatures, None, "both", required).accepted([key, key])
        assert caught.value.reason == "SIGNATURE_MISSING", what


def made(algorithm: str) -> Signature:
    by = SignedBy("kid-old", 1, "adapter-memory", b"", b"", b"")
    return Signature(b"value", algorithm, bytes(16), 7, by, ())


def reviewers(directory: Path, ends: ExitStack) -> Reviewers:
    replica = RunningReplica(directory, AdapterRig(directory / "store", POLICY))
    ends.callback(replica.stop)
    return Reviewers(replica, ends)


ATTEMPTS: tuple[Callable[[Path], None], ...] = (
    an_older_client,
    an_older_agent,
    a_policy_that_is_rolled_back,
    a_replayed_approval,
    an_algorithm_that_was_stripped,
    a_second_signature_that_was_stripped,
)


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.__name__)
def test_i10_is_refused(attempt, tmp_path):
    attempt(tmp_path)


@dataclass(frozen=True)
class Lock:
    """Something that refuses, and what it is when it is broken. `target` is a table or has
    attributes.
    """

    target: Any
    name: Any
    broken: Any

    def break_open(self, patch: pytest.MonkeyPatch) -> None:
        if isinstance(self.target, dict):
            patch.setitem(self.target, self.name, self.broken)
        else:
            patch.setattr(self.target, self.name, self.broken)


def _nothing(*_: Any) -> None:
    pass


LEFT_OPEN = Lock(
    open_calls,
    "admit_group",
    lambda handle, snapshot, group, now: open_calls.admit_open(
        handle, snapshot, group.context, now
    ),
)
"""What names no algorithm leaves it open."""

GRANT_RULES = policy_strength.TABLE[doc.GrantPart]
BROKEN: dict[str, tuple[Callable[[Path], None], tuple[Lock, ...]]] = {
    "neither the agent nor the adapter looks": (
        an_older_client,
        (Lock(agent_admission, "demand_algorithm", _nothing), LEFT_OPEN),
    ),
    "the rollout says what a call that names one is signed with": (
        an_older_agent,
        (
            Lock(
                admit,
                "signing_with",
                lambda state, name, who, asked, allowed: signing_with(
                    state, name, who, 0, allowed or {ED25519}
                ),
            ),
        ),
    ),
    "an algorithm more is not broader": (
        a_policy_that_is_rolled_back,
        (Lock(GRANT_RULES, "algorithms", Names("algorithms", added=Strength.STRONGER)),),
    ),
    "the policy in force is not asked": (
        a_policy_that_is_rolled_back,
        (Lock(admission, "_algorithm_allowed", _nothing),),
    ),
    "every table and comparison is gone": (
        a_replayed_approval,
        (
            Lock(
                lifecycle.PROPOSAL.moves[ProposalState.EXECUTED],
                ProposalEvent.APPROVE,
                ProposalState.APPROVED,
            ),
            Lock(approvals, "_demand_other", _nothing),
            Lock(Executors, "demand_unchanged", _nothing),
            Lock(
                lifecycle.POLICY.moves[PolicyState.SUPERSEDED],
                PolicyEvent.APPLY,
                PolicyState.IN_FORCE,
            ),
            Lock(policies, "_demand_base", lambda tx, base: policies.in_force(tx)),
        ),
    ),
    "what names none is open": (an_algorithm_that_was_stripped, (LEFT_OPEN,)),
    "one is enough": (
        a_second_signature_that_was_stripped,
        (Lock(signature_rule, "MOST", 1),),
    ),
    "one key is enough": (
        a_second_signature_that_was_stripped,
        (Lock(Signatures, "accepted", lambda self, keys: keys[0]),),
    ),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_i10_an_attempt_succeeds_when_the_last_lock_is_broken_and_not_before(
    defect, tmp_path, monkeypatch
):
    attempt, locks = BROKEN[defect]
    for number, lock in enumerate(locks):
        if number:
            made = tmp_path / str(number)
            made.mkdir()
            attempt(made)
        lock.break_open(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        attempt(tmp_path)
