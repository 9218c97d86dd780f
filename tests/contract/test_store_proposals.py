"""Acts that need two people in the store, on every engine."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from capsign_adapter.decide.approvals import MAX_OPEN, MAX_OPEN_OF_ONE
from capsign_adapter.model.lifecycle import ProposalEvent as Event
from capsign_adapter.model.lifecycle import ProposalState as State
from capsign_adapter.model.proposals import digest_of
from capsign_adapter.store.errors import EpochMovedError
from capsign_adapter.store.interfaces.proposals import Move
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.drafts import NOW, check_log
from support.proposals import DESTROY, Deed, done, draft, entry

APPROVER = "spiffe://capsign.test/people/pia"


@pytest.fixture
def deed():
    return Deed()


@pytest.fixture
def acts(deed):
    return deed.executors()


def epoch(store) -> int:
    return store.control().revocation_epoch


def add(store, acts, **changes):
    return store.add_proposal(draft(**changes), epoch(store), acts, entry, NOW).row


def move(store, acts, row, *events, now=NOW + 1, **more):
    wanted = Move(row, events, APPROVER, epoch(store), now, **more)
    return store.move_proposal(wanted, acts, entry)


def refused(reason, call, *arguments, **keywords) -> None:
    with pytest.raises(FailureError) as caught:
        call(*arguments, **keywords)
    assert caught.value.reason == reason


def test_a_proposal_is_found_again_and_its_digest_is_that_of_how_things_are(store, second, acts):
    wanted = draft()
    made = store.add_proposal(wanted, epoch(store), acts, entry, NOW)
    assert made.row == dataclasses.replace(wanted, digest=digest_of(wanted, b"1"))
    assert second.proposal(wanted.id) == made.row
    assert second.proposals() == second.proposals(waiting=True) == [made.row]
    assert check_log(store) == [entry(wanted, None, made.epoch)]
    assert epoch(store) == made.epoch, "nothing is decided by a proposal yet"


def test_approved_and_done_in_one_transaction(store, second, acts, deed):
    row = add(store, acts)
    before = epoch(store)
    moved = move(second, acts, row, Event.APPROVE, Event.EXECUTE)
    assert (moved.row.state, moved.row.decided_by) == (State.EXECUTED, APPROVER)
    assert moved.row.executed_ms == moved.row.decided_ms == NOW + 1
    assert moved.epoch == epoch(store) == before + 1
    assert store.proposal(row.id) == moved.row
    assert store.proposals(waiting=True) == []
    assert done(store) == 1
    assert check_log(store)[1:] == [
        entry(row, Event.APPROVE, before),
        b"deed %d" % moved.epoch,
        entry(row, Event.EXECUTE, moved.epoch),
    ]


def test_what_waits_is_approved_now_and_done_later(store, acts):
    row = add(store, acts, act=DESTROY, waits_ms=500)
    approved = move(store, acts, row, Event.APPROVE).row
    assert (approved.state, approved.not_before_ms) == (State.APPROVED, NOW + 501)
    assert store.proposals(waiting=True) == [approved]
    assert done(store) == 0
    executed = move(store, acts, approved, Event.EXECUTE, now=NOW + 600).row
    assert (executed.state, executed.executed_ms) == (State.EXECUTED, NOW + 600)
    assert executed.decided_by == APPROVER
    assert done(store) == 1


@pytest.mark.parametrize("event", [Event.REJECT, Event.EXPIRE, Event.CALL_OFF, Event.OVERTAKE])
def test_what_ends_otherwise_does_nothing(store, acts, event):
    row = add(store, acts)
    after = move(store, acts, row, event).row
    assert not after.is_open
    assert done(store) == 0
    refused(
        reasons.REASON_ILLEGAL_TRANSITION, move, store, acts, after, Event.APPROVE, Event.EXECUTE
    )


def test_an_approval_that_is_sent_again_does_it_once(store, second, acts):
    """Replayed by whoever recorded it, or sent again by who heard no answer."""
    row = add(store, acts)
    move(store, acts, row, Event.APPROVE, Event.EXECUTE)
    for one in (store, second):
        refused(
            reasons.REASON_ILLEGAL_TRANSITION, move, one, acts, row, Event.APPROVE, Event.EXECUTE
        )
    assert done(store) == 1


@pytest.mark.parametrize("events", [(Event.APPROVE,), (Event.APPROVE, Event.EXECUTE)])
def test_what_it_was_made_for_has_changed(store, acts, deed, events):
    row = add(store, acts)
    deed.version = 2
    refused(reasons.REASON_PROPOSAL_CHANGED, move, store, acts, row, *events)
    assert store.proposal(row.id) == row
    assert len(check_log(store)) == 1


def test_what_it_was_made_for_changes_while_it_waits(store, acts, deed):
    approved = move(store, acts, add(store, acts, waits_ms=10), Event.APPROVE).row
    deed.version = 2
    refused(reasons.REASON_PROPOSAL_CHANGED, move, store, acts, approved, Event.EXECUTE)
    assert move(store, acts, approved, Event.OVERTAKE).row.state == State.OVERTAKEN
    assert done(store) == 0


def test_a_deed_that_fails_leaves_the_proposal_as_it_was(store, acts, deed):
    row = add(store, acts)
    deed.failure = FailureError(reasons.REASON_NOT_FOUND, "It is gone.")
    refused(reasons.REASON_NOT_FOUND, move, store, acts, row, Event.APPROVE, Event.EXECUTE)
    assert store.proposal(row.id) == row
    assert len(check_log(store)) == 1
    deed.failure = None
    assert move(store, acts, row, Event.APPROVE, Event.EXECUTE).row.state == State.EXECUTED


def test_a_decision_of_an_epoch_ago_is_made_anew(store, acts):
    """Between the look at the roles and the write somebody changed them."""
    row, seen = add(store, acts), epoch(store)
    store.revoke(6, "*", lambda _: b"leaf", NOW)
    stale = Move(row, (Event.APPROVE, Event.EXECUTE), APPROVER, seen, NOW)
    with pytest.raises(EpochMovedError):
        store.move_proposal(stale, acts, entry)
    with pytest.raises(EpochMovedError):
        store.add_proposal(draft(), seen, acts, entry, NOW)
    with pytest.raises(EpochMovedError):
        store.acknowledge_proposal(row, APPROVER, seen, entry, NOW)
    assert store.proposal(row.id) == row


def test_of_two_who_approve_at_once_one_does(store, second, acts):
    row = add(store, acts)
    together, outcomes = threading.Barrier(2), []

    def approve(one) -> None:
        wanted = Move(row, (Event.APPROVE, Event.EXECUTE), APPROVER, epoch(one), NOW + 1)
        together.wait()
        try:
            one.move_proposal(wanted, acts, entry)
            outcomes.append("done")
        except EpochMovedError:
            outcomes.append("moved")
        except FailureError as error:
            outcomes.append(error.row.name)

    threads = [threading.Thread(target=approve, args=(one,)) for one in (store, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) in (["done", "moved"], ["ILLEGAL_TRANSITION", "done"])
    assert done(store) == 1


def test_glass_that_was_broken_waits_for_somebody_else(store, acts):
    row = add(store, acts)
    broken = move(store, acts, row, Event.BREAK_GLASS, glass=2).row
    assert (broken.state, broken.glass, broken.unacknowledged) == (State.EXECUTED, 2, True)
    assert store.proposals(waiting=True) == [broken]
    seen = store.acknowledge_proposal(broken, "spiffe://t/a", epoch(store), entry, NOW + 9).row
    assert (seen.acknowledged_by, seen.acknowledged_ms) == ("spiffe://t/a", NOW + 9)
    assert store.proposals(waiting=True) == []
    refused(
        reasons.REASON_ILLEGAL_TRANSITION,
        store.acknowledge_proposal,
        broken,
        APPROVER,
        epoch(store),
        entry,
        NOW,
    )


def test_the_same_wish_twice_is_one_proposal(store, second, acts, deed):
    """A proposer who heard no answer asks again, or two have the same thought."""
    first = add(store, acts)
    again = second.add_proposal(
        draft(proposer="spiffe://capsign.test/people/otto"), epoch(second), acts, entry, NOW
    )
    assert again.row == first
    assert len(check_log(store)) == 1
    deed.version = 2
    assert add(store, acts) != first


def test_so_many_wait_and_no_more(store, acts):
    for number in range(MAX_OPEN_OF_ONE):
        last = add(store, acts, target=f"shop/key-{number}")
    refused(reasons.REASON_OVERLOADED, add, store, acts, target="shop/one-more")
    add(store, acts, target="shop/one-more", proposer="spiffe://t/another")
    move(store, acts, last, Event.CALL_OFF)
    add(store, acts, target="shop/instead")
    assert MAX_OPEN % MAX_OPEN_OF_ONE == 0


def test_pages_newest_first(store, acts):
    made = [add(store, acts, target=f"shop/key-{number}") for number in range(5)]
    by_id = sorted(made, key=lambda row: row.id, reverse=True)
    assert store.proposals(limit=3) == by_id[:3]
    assert store.proposals(before=by_id[2].id) == by_id[3:]
    assert store.proposal(bytes(16)) is None


def test_an_act_of_a_newer_release_is_left_alone(store, deed):
    """A replica of the release before finds what it cannot do: it neither does nor ends it."""
    row = add(store, deed.executors())
    older = deed.executors(DESTROY)
    refused(
        reasons.REASON_ILLEGAL_TRANSITION, move, store, older, row, Event.APPROVE, Event.EXECUTE
    )
    assert store.proposal(row.id) == row
