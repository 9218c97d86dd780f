"""Versions of the policy in the store, on every engine."""

from __future__ import annotations

import hashlib
import threading

import pytest
from capsign_adapter.model.lifecycle import PolicyEvent, PolicyState
from capsign_adapter.model.policies import PolicyDraft
from capsign_adapter.store.errors import EpochMovedError
from capsign_adapter.store.interfaces.policies import MAX_PROPOSED
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.drafts import NOW, check_log, draft

ALICE, BOB = "spiffe://capsign.test/operator/alice", "spiffe://capsign.test/approver/bob"


def written(text: bytes, base: int = 1, proposer: str = ALICE) -> PolicyDraft:
    return PolicyDraft(hashlib.sha256(text).digest(), text, base, proposer)


def first(store, text: bytes = b"one", now: int = NOW):
    return store.first_policy(written(text, 0), lambda epoch: b"first@%d" % epoch, now)


def propose(store, text: bytes, base: int = 1):
    leaf = lambda row: b"proposed %d" % row.version  # noqa: E731 - one line says it
    return store.propose_policy(written(text, base), leaf, NOW + 1)


def apply(store, version: int, by: str = BOB):
    leaf = lambda row, epoch: b"applied %d@%d" % (row.version, epoch)  # noqa: E731 - as above
    return store.apply_policy(version, by, leaf, NOW + 2)


def refused(reason: int, call, *arguments) -> None:
    with pytest.raises(FailureError) as caught:
        call(*arguments)
    assert caught.value.reason == reason, caught.value.detail


def test_the_first_document_is_version_1_and_the_next_starts_find_it(store, second):
    assert store.policy_in_force() is None
    before = store.control().revocation_epoch
    row = first(store)
    assert (row.version, row.base, row.state) == (1, 0, PolicyState.IN_FORCE)
    assert (row.proposer, row.decided_by, row.decided_ms) == (ALICE, ALICE, NOW)
    assert first(second, b"another", NOW + 9) == row
    assert second.policy_in_force() == row
    assert second.policy_document(1) == b"one"
    assert store.control().revocation_epoch == before + 1
    assert check_log(store) == [b"first@%d" % (before + 1)]


def test_of_replicas_that_start_at_once_one_is_first(store, second):
    found = []
    threads = [
        threading.Thread(target=lambda one=one, text=text: found.append(first(one, text)))
        for one, text in ((store, b"a"), (second, b"b"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == store.policy_in_force()
    assert len(store.policy_versions()) == len(check_log(store)) == 1


def test_a_version_comes_into_force_and_the_one_before_makes_way(store, second):
    first(store)
    epoch = store.control().revocation_epoch
    row = propose(store, b"two")
    assert (row.version, row.state, row.decided_by) == (2, PolicyState.PROPOSED, "")
    assert second.policy_in_force().version == 1
    assert store.control().revocation_epoch == epoch
    assert apply(second, 2) == (epoch + 1, 2)
    now = store.policy_in_force()
    assert (now.version, now.decided_by, now.decided_ms) == (2, BOB, NOW + 2)
    two, one = store.policy_versions()
    assert two == now
    assert (one.state, one.until_ms, one.decided_ms) == (PolicyState.SUPERSEDED, NOW + 2, NOW)
    assert store.policy_document(1) == b"one", "what records name can be read for ever"
    assert store.policy_version(2) == now
    assert check_log(store) == [b"first@%d" % epoch, b"proposed 2", b"applied 2@%d" % (epoch + 1)]


def test_what_was_decided_under_the_version_before_is_not_committed(store):
    first(store)
    epoch = store.control().revocation_epoch
    propose(store, b"two")
    apply(store, 2)
    with pytest.raises(EpochMovedError):
        store.commit(epoch, [draft()], NOW)


def test_others_that_wait_are_overtaken_and_cannot_be_applied(store):
    first(store)
    propose(store, b"two")
    propose(store, b"three")
    apply(store, 3)
    assert store.policy_version(2).state == PolicyState.OVERTAKEN
    refused(reasons.REASON_ILLEGAL_TRANSITION, apply, store, 2)
    refused(reasons.REASON_ILLEGAL_TRANSITION, apply, store, 3)
    refused(reasons.REASON_POLICY_STALE, propose, store, b"four", 1)
    refused(reasons.REASON_NOT_FOUND, apply, store, 9)
    assert store.policy_in_force().version == 3


def test_to_go_back_makes_a_new_version(store):
    first(store)
    propose(store, b"two")
    apply(store, 2)
    row = propose(store, b"one", base=2)
    apply(store, row.version)
    assert row.version == 3
    assert store.policy_in_force().digest == store.policy_version(1).digest


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (PolicyEvent.REJECT, PolicyState.REJECTED),
        (PolicyEvent.EXPIRE, PolicyState.EXPIRED),
        (PolicyEvent.CALL_OFF, PolicyState.CALLED_OFF),
    ],
)
def test_a_version_that_ends_never_comes_into_force(store, event, state):
    first(store)
    epoch = store.control().revocation_epoch
    propose(store, b"two")
    assert store.end_policy(2, event, BOB, lambda row: b"ended", NOW + 3) == 2
    ended = store.policy_version(2)
    assert (ended.state, ended.decided_by, ended.decided_ms) == (state, BOB, NOW + 3)
    refused(reasons.REASON_ILLEGAL_TRANSITION, apply, store, 2)
    assert store.control().revocation_epoch == epoch
    assert propose(store, b"two").version == 3, "no version is used twice"


def test_few_wait_at_a_time(store):
    first(store)
    for number in range(MAX_PROPOSED):
        propose(store, b"%d" % number)
    refused(reasons.REASON_OVERLOADED, propose, store, b"one more")
    apply(store, 2)
    assert propose(store, b"one more", base=2).version == MAX_PROPOSED + 2


def test_they_are_listed_newest_first_a_page_at_a_time(store):
    first(store)
    for number in range(3):
        propose(store, b"%d" % number)
    assert [row.version for row in store.policy_versions(limit=3)] == [4, 3, 2]
    assert [row.version for row in store.policy_versions(before=2)] == [1]
    assert store.policy_version(9) is None
    assert store.policy_document(9) is None


def test_a_maker_of_leaves_that_fails_leaves_nothing(store):
    first(store)
    propose(store, b"two")

    def broken(*_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.apply_policy(2, BOB, broken, NOW)
    assert store.policy_in_force().version == 1
    assert store.policy_version(2).state == PolicyState.PROPOSED
    assert len(check_log(store)) == 2


def test_a_large_document_comes_back_as_it_was(store, second):
    text = bytes(range(256)) * 16_384
    first(store, text)
    assert second.policy_document(1) == text
