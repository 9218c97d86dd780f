"""A rollout to another custody class: from a key derived inside the token to one that the token
signs with itself, and back.
"""

from __future__ import annotations

import pytest
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.sign.policy_in_force import draft_of
from capsign_evidence.leaf_reader import Signed, decode
from capsign_wire.types.v1 import algorithms_pb2 as alg
from support.adapter_rig import OPERATOR, POLICY, AdapterRig
from support.rollout_rig import KEY, Clock, RolloutRig

S = RolloutStage


def document(kind: str) -> str:
    """The policy with the key of this kind, with ES256, and nothing else of that key."""
    before, keys = POLICY.split("keys:\n", 1)
    _, rest = keys.split("\n", 1)
    ours = f"  - {{tenant: demo, name: orders, kind: {kind}, algorithms: [ES256]}}\n"
    text = before + "keys:\n" + ours + rest
    for algorithms in ("[Ed25519, ES256, HS256, ML-DSA-65]", "[Ed25519]"):
        text = text.replace(f"algorithms: {algorithms}", "algorithms: [ES256]")
    return text


class Fleet:
    """One replica whose policy changes."""

    def __init__(self, rig: AdapterRig) -> None:
        self.rig, self.rollouts = rig, RolloutRig(rig, Clock())

    def become(self, kind: str) -> None:
        """The key is to be of this kind from its next version on."""
        policy, store = parse_policy(document(kind).encode()), self.rig.store
        now = self.rollouts.clock.now
        base = store.policy_in_force().version
        row = store.propose_policy(draft_of(policy, base, OPERATOR), lambda _: b"leaf", now)
        store.apply_policy(row.version, OPERATOR, lambda *_: b"leaf", now)
        self.rollouts.epochs.look()
        self.rollouts.policy = self.rig.snapshots.policy()

    def custody(self) -> int:
        """The custody class of the next signature, as its leaf has it."""
        (item,) = self.rig.sign(bytes(32), algorithm=alg.ALGORITHM_ES256)
        assert item.signatures, item.failure
        entry = decode(self.rig.entries()[item.leaf_index])
        assert isinstance(entry, Signed)
        return entry.group.custody

    def roll(self) -> None:
        self.rollouts.start()
        self.rollouts.until(S.DONE)


@pytest.fixture
def fleet(tmp_path):
    rig = AdapterRig(tmp_path / "store", document("derived"))
    yield Fleet(rig)
    rig.close()


def test_a_key_moves_to_another_custody_class_and_back(fleet):
    assert fleet.custody() == alg.CUSTODY_CLASS_ADAPTER_MEMORY
    fleet.become("direct")
    assert fleet.custody() == alg.CUSTODY_CLASS_ADAPTER_MEMORY, "until it is rolled"
    fleet.roll()
    assert fleet.custody() == alg.CUSTODY_CLASS_HSM_DIRECT
    fleet.become("derived")
    fleet.roll()
    assert fleet.custody() == alg.CUSTODY_CLASS_ADAPTER_MEMORY
    versions = [row for row in fleet.rig.store.key_versions() if row.key == KEY[1]]
    assert [row.derived for row in sorted(versions, key=lambda row: row.version)] == [
        *(True, False, True),
    ]
