"""What is decided by: the version of the policy that the store has in force, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.sign import policy_in_force
from capsign_adapter.sign.policy_in_force import InForce, PolicyUnreadableError
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, Signed, decode
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, OTHER, POLICY, RULES, peer

WITHOUT = POLICY.replace(
    "[Ed25519, ES256, HS256, ML-DSA-65]\n    protocols", "[ES256]\n    protocols"
)
"""The grant orders-jwt signs with Ed25519 no more."""


def test_the_first_document_is_version_1_with_a_leaf_that_names_it(rig):
    applied = [
        entry
        for entry in map(decode, rig.entries())
        if isinstance(entry, Admin) and entry.act == Act.POLICY_APPLIED
    ]
    assert [entry.target for entry in applied] == [f"1/{RULES.digest.hex()}"]
    assert rig.snapshots.current.policy_version == 1


def test_a_change_holds_for_a_handle_that_was_minted_before_and_a_decision_that_was_kept(rig):
    handle = rig.handle()
    assert rig.sign(b"m", handle=handle)[0].signatures
    rig.apply(WITHOUT)
    (item,) = rig.sign(b"m", handle=handle)
    assert item.failure.reason == reasons.REASON_ALGORITHM_NOT_ALLOWED


def test_a_batch_is_decided_under_one_version_also_when_it_changes_meanwhile(rig):
    """It was decided and signed under version 1; before its commit version 2 came into force. All
    of it is decided anew, and all its records name version 2.
    """
    handle, commit, beside = rig.handle(), rig.store.commit, rig.beside()

    def late(epoch, drafts, now_ms):
        rig.store.honestly("commit")
        beside.apply(POLICY.replace("24h", "23h"))
        return commit(epoch, drafts, now_ms)

    rig.store.instead(commit=late)
    items = rig.sign(b"m", b"n", handle=handle)
    assert all(item.signatures for item in items)
    signed = [decode(entry) for entry in rig.entries() if entry not in {b"proposed", b"applied"}]
    digests = [entry.group.policy_digest for entry in signed if isinstance(entry, Signed)]
    assert digests == [beside.policy.digest] * 2
    beside.close()


def test_what_another_replica_applied_is_found_at_the_commit(rig):
    beside, handle = rig.beside(), rig.handle()
    beside.apply(WITHOUT)
    (item,) = rig.sign(b"m", handle=handle)
    assert item.failure.reason == reasons.REASON_ALGORITHM_NOT_ALLOWED
    beside.close()


def test_a_subject_that_was_added_signs_and_one_that_was_removed_does_not(rig):
    before = rig.handle("others", who=peer(OTHER))
    assert rig.sign(b"m", handle=before, who=peer(OTHER))[0].signatures
    rig.apply(POLICY.replace(f'workloads: ["{OTHER}"]', f'workloads: ["{APP}"]'))
    assert rig.sign(b"m", handle=rig.handle("others"))[0].signatures
    (item,) = rig.sign(b"m", handle=before, who=peer(OTHER))
    assert item.failure.reason == reasons.REASON_HANDLE_REVOKED


def test_only_another_document_is_parsed(rig, monkeypatch):
    before = rig.snapshots.current
    monkeypatch.setattr(policy_in_force, "parse_policy", pytest.fail)
    rig.store.revoke(1, "0" * 32, lambda _: b"leaf", 1)
    assert rig.snapshots.refresh() is not before
    assert rig.snapshots.policy() is before.policy


def test_a_policy_that_this_release_cannot_read_stops_it(rig):
    """Another replica runs a newer release, and applied what this one does not know. By the version
    before it nothing may be decided any more.
    """
    strange = replace(RULES, document=b"version: 2\n", digest=b"2" * 32)
    beside = rig.beside()
    row = beside.store.propose_policy(
        policy_in_force.draft_of(strange, 1, "spiffe://capsign.test/a"), lambda _: b"leaf", 1
    )
    beside.store.apply_policy(row.version, "spiffe://capsign.test/b", lambda *_: b"leaf", 1)
    with pytest.raises(PolicyUnreadableError, match="Version 2 of the policy"):
        rig.snapshots.refresh()
    with pytest.raises(PolicyUnreadableError):
        rig.sign(b"m")
    beside.close()


def test_a_store_without_one_says_so_and_a_trial_assumes_the_first(rig):
    rig.store.instead(policy_in_force=lambda: None)
    with pytest.raises(PolicyUnreadableError, match="provision"):
        policy_in_force.read(rig.store, None)
    tried = InForce(0, parse_policy(POLICY.encode()))
    assert policy_in_force.read(rig.store, tried) is tried
    with pytest.raises(PolicyUnreadableError):
        policy_in_force.read(rig.store, InForce(1, RULES))
