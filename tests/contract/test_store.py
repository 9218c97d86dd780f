"""What `store/interfaces` promise, on every engine."""

from __future__ import annotations

import dataclasses
import os
import threading
import time

import pytest
from capsign_adapter.model.control import Revocation
from capsign_adapter.model.evidence import Checkpoint, Contradiction
from capsign_adapter.model.intents import Stored, Verdict
from capsign_adapter.model.key_versions import KeyClaim, KeyVersionRow
from capsign_adapter.model.lifecycle import (
    KEY_VERSION,
    IntentEvent,
    IntentState,
    KeyEvent,
    Table,
    intent_state,
)
from capsign_adapter.store import registry
from capsign_adapter.store.errors import (
    AuditOutOfOrderError,
    EpochMovedError,
    StoreUnavailableError,
)
from capsign_adapter.store.stored_result import refusal_of
from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2, signing_pb2
from support.drafts import APP, NOW, OTHER_APP, audit, check_log, draft

HOUR = 3_600_000


def epoch(store) -> int:
    return store.control().revocation_epoch


def commit(store, *drafts):
    return store.commit(epoch(store), drafts, NOW)


def test_a_new_store_is_empty(store):
    control = store.control()
    assert (control.tree_size, control.intent_watermark_ms) == (0, 0)
    assert control.revocation_epoch >= 1
    assert store.entries(0, 10) == []
    assert store.hashes(0, 0, 10) == []
    assert store.latest_checkpoint() is None
    assert store.revocations() == (control.revocation_epoch, [])
    assert store.key_versions() == []
    assert store.audit_batches() == []


def test_it_tells_what_it_takes_on_its_disk(store):
    """With PostgreSQL nobody said so, and no alert came before the disk was full."""
    before = store.size_bytes()
    assert before > 0
    for _ in range(20):
        commit(store, *(draft() for _ in range(250)))
    # A leaf and a row are some hundred bytes each; what SQLite wrote may still be in a log that was
    # made long at once.
    grown = store.size_bytes() - before
    assert grown > 5_000 * 200 or store.name == "sqlite"
    assert store.size_bytes() > 5_000 * 200


def test_a_store_with_a_clock_of_its_own_tells_it(store):
    """A database server has one, which all replicas share. A file has none: its users are on one
    machine.
    """
    before = time.time_ns() // 1_000_000
    told = store.clock_ms()
    after = time.time_ns() // 1_000_000
    if store.name == "sqlite":
        assert told is None
    else:
        assert before <= told + 1
        assert told - 1 <= after


def test_new_intents_are_inserted_and_sequenced_in_order(store):
    drafts = [draft() for _ in range(5)]
    results = commit(store, *drafts)
    assert [(r.verdict, r.leaf_index) for r in results] == [
        (Verdict.NEW, index) for index in range(5)
    ]
    assert check_log(store) == [item.leaf for item in drafts]
    found = store.find(APP, [item.intent_id for item in drafts])
    assert found == {
        item.intent_id: Stored(intent_state(item.event), item.grant, item.result, at)
        for at, item in enumerate(drafts)
    }


def test_an_empty_batch_writes_nothing(store):
    assert commit(store) == []
    assert store.control().tree_size == 0


def test_a_refusal_is_a_final_row_too(store):
    refused = draft(event=IntentEvent.REFUSE, result=b"why")
    assert commit(store, refused)[0].verdict is Verdict.NEW
    again = commit(store, refused._replace(event=IntentEvent.SIGN, result=b"signed"))[0]
    assert (again.verdict, again.stored.state, again.stored.result) == (
        Verdict.REPLAY,
        IntentState.REFUSED,
        b"why",
    )


def test_the_same_intent_again_gives_the_stored_bytes_and_no_leaf(store):
    first = draft()
    commit(store, draft(), first)
    # A second signature was made (hedged, so other bytes) before the ledger was asked: the first
    # one stands.
    again = commit(store, first._replace(result=b"other bytes", leaf=b"other leaf"))[0]
    assert (again.verdict, again.leaf_index) == (Verdict.REPLAY, 1)
    assert again.stored == Stored(IntentState.DONE, "orders", first.result, 1)
    assert store.control().tree_size == 2


@pytest.mark.parametrize(
    "changes", [{"fingerprint": b"x" * 32}, {"fingerprint": b""}, {"grant": "refunds"}]
)
def test_another_request_under_the_same_intent_is_a_conflict_with_a_leaf(store, changes):
    first = draft()
    commit(store, first)
    conflict = commit(store, first._replace(**changes))[0]
    assert (conflict.verdict, conflict.leaf_index) == (Verdict.REFUSED, 1)
    assert conflict.reason == failures_pb2.REASON_INTENT_CONFLICT
    assert check_log(store)[1] == first.refusal_leaf(failures_pb2.REASON_INTENT_CONFLICT)
    assert store.find(APP, [first.intent_id])[first.intent_id].result == first.result


def test_intent_ids_are_unique_per_workload_only(store):
    mine = draft()
    theirs = mine._replace(workload=OTHER_APP, result=b"theirs")
    assert [r.verdict for r in commit(store, mine, theirs)] == [Verdict.NEW, Verdict.NEW]
    assert store.find(OTHER_APP, [mine.intent_id])[mine.intent_id].result == b"theirs"
    assert store.find(APP, [mine.intent_id])[mine.intent_id].result == mine.result


def test_find_of_a_workload_that_never_signed(store):
    assert store.find("spiffe://capsign.test/nobody", [new_intent_id()]) == {}
    assert store.find(APP, []) == {}


def test_in_one_batch_the_second_sees_the_first(store):
    first, new = draft(), draft()
    conflict = first._replace(fingerprint=b"x" * 32)
    results = commit(store, first, first, conflict, new)
    assert [r.verdict for r in results] == [
        Verdict.NEW,
        Verdict.REPLAY,
        Verdict.REFUSED,
        Verdict.NEW,
    ]
    assert [r.leaf_index for r in results] == [0, 0, 1, 2]
    assert results[1].stored == Stored(IntentState.DONE, "orders", first.result, 0)
    assert check_log(store) == [
        first.leaf,
        first.refusal_leaf(failures_pb2.REASON_INTENT_CONFLICT),
        new.leaf,
    ]


def test_one_bad_item_never_fails_its_neighbours(store):
    old = [draft() for _ in range(3)]
    commit(store, *old)
    fresh = [draft() for _ in range(3)]
    mixed = [item for pair in zip(old, fresh, strict=True) for item in pair]
    results = commit(store, *mixed)
    assert [r.verdict for r in results] == [Verdict.REPLAY, Verdict.NEW] * 3
    assert [r.leaf_index for r in results] == [0, 3, 1, 4, 2, 5]
    assert check_log(store) == [item.leaf for item in old + fresh]


def test_a_large_batch_crosses_tiles(store):
    drafts = [draft() for _ in range(1000)]
    assert {r.verdict for r in commit(store, *drafts)} == {Verdict.NEW}
    assert [r.verdict for r in commit(store, *drafts)] == [Verdict.REPLAY] * 1000
    check_log(store)


# Resolve: done or never.


def test_resolve_of_an_unseen_intent_is_never_and_the_late_call_is_refused(store):
    late = draft()
    assert store.resolve(APP, late.intent_id, "orders", b"never", NOW) == Stored(
        IntentState.NEVER, "orders", b"", 0
    )
    result = commit(store, late)[0]
    assert (result.verdict, result.reason) == (Verdict.REFUSED, failures_pb2.REASON_INTENT_NEVER)
    assert check_log(store) == [b"never", late.refusal_leaf(failures_pb2.REASON_INTENT_NEVER)]
    assert store.resolve(APP, late.intent_id, "orders", b"never again", NOW).leaf_index == 0
    assert store.control().tree_size == 2


def test_resolve_of_a_done_intent_gives_its_row(store):
    done = draft()
    commit(store, done)
    assert store.resolve(APP, done.intent_id, "orders", b"never", NOW) == Stored(
        IntentState.DONE, "orders", done.result, 0
    )
    assert store.control().tree_size == 1


@pytest.mark.parametrize("never", [False, True])
def test_resolve_under_another_grant_is_a_conflict(store, never):
    done = draft()
    if never:
        store.resolve(APP, done.intent_id, "orders", b"never", NOW)
    else:
        commit(store, done)
    with pytest.raises(FailureError) as caught:
        store.resolve(APP, done.intent_id, "refunds", b"never", NOW)
    assert caught.value.reason == failures_pb2.REASON_INTENT_CONFLICT


def test_resolve_racing_commit_has_one_winner(store, second):
    """Both see the intent absent. Whoever takes the lock first decides, and the other is told."""
    outcomes = set()
    for _ in range(20):
        item = draft()
        barrier = threading.Barrier(2)
        answers: dict = {}

        def sign(item=item, barrier=barrier, answers=answers):
            barrier.wait()
            answers["commit"] = second.commit(epoch(second), [item], NOW)[0]

        thread = threading.Thread(target=sign)
        thread.start()
        barrier.wait()
        resolved = store.resolve(APP, item.intent_id, "orders", b"never", NOW)
        thread.join()
        committed = answers["commit"]
        if resolved.state is IntentState.DONE:
            assert (committed.verdict, committed.leaf_index) == (Verdict.NEW, resolved.leaf_index)
        else:
            assert (committed.verdict, committed.reason) == (
                Verdict.REFUSED,
                failures_pb2.REASON_INTENT_NEVER,
            )
        outcomes.add(resolved.state)
    assert outcomes <= {IntentState.DONE, IntentState.NEVER}
    check_log(store)


# Uses.


def test_uses_are_counted_for_new_signatures_only(store):
    limited = {"handle_serial": b"serial-1", "max_uses": 3}
    first = draft(**limited)
    refused = draft(**limited, event=IntentEvent.REFUSE, result=b"no")
    commit(store, first, refused, first)
    results = commit(
        store, *[draft(**limited) for _ in range(3)], draft(handle_serial=b"serial-2", max_uses=1)
    )
    assert [r.verdict for r in results] == [Verdict.NEW, Verdict.NEW, Verdict.REFUSED, Verdict.NEW]
    assert results[2].reason == failures_pb2.REASON_USES_EXHAUSTED
    check_log(store)


def test_exhausted_uses_are_final_for_the_intent(store):
    first, second_use = draft(handle_serial=b"s", max_uses=1), draft(handle_serial=b"s", max_uses=1)
    commit(store, first, second_use)
    again = commit(store, second_use._replace(handle_serial=b"fresh"))[0]
    assert (again.verdict, again.stored.state) == (Verdict.REPLAY, IntentState.REFUSED)
    assert refusal_of(again.stored.result).reason == failures_pb2.REASON_USES_EXHAUSTED
    assert commit(store, first)[0].stored.state is IntentState.DONE


# Retention.


def test_garbage_collection_forgets_what_is_older_than_the_watermark(store):
    old, young = draft(new_intent_id(NOW - 2 * HOUR)), draft(new_intent_id(NOW))
    commit(store, old, young)
    assert store.collect_garbage(NOW, HOUR) == 1
    assert store.control().intent_watermark_ms == NOW - HOUR
    assert list(store.find(APP, [old.intent_id, young.intent_id])) == [young.intent_id]
    result = commit(store, old)[0]
    assert (result.verdict, result.reason) == (Verdict.REFUSED, failures_pb2.REASON_INTENT_EXPIRED)
    assert check_log(store)[2] == old.refusal_leaf(failures_pb2.REASON_INTENT_EXPIRED)
    with pytest.raises(FailureError) as caught:
        store.resolve(APP, old.intent_id, "orders", b"never", NOW)
    assert caught.value.reason == failures_pb2.REASON_INTENT_EXPIRED
    assert store.control().tree_size == 3


def test_a_late_intent_needs_a_row(store):
    """Nothing was collected yet, so the watermark says nothing: an id of 1970 was taken as a new
    one.
    """
    known, unknown = draft(new_intent_id(NOW - 25 * HOUR)), draft(new_intent_id(NOW - 25 * HOUR))
    commit(store, known)
    told, refused = commit(store, known._replace(late=True), unknown._replace(late=True))
    assert (told.verdict, told.stored.state) == (Verdict.REPLAY, IntentState.DONE)
    assert (refused.verdict, refused.reason) == (
        Verdict.REFUSED,
        failures_pb2.REASON_INTENT_EXPIRED,
    )
    assert list(store.find(APP, [known.intent_id, unknown.intent_id])) == [known.intent_id]


def test_a_clock_that_went_back_does_not_open_the_window_again(store):
    """Signed, collected, then the clock steps back two hours: without a watermark of its own the
    ledger would sign it afresh.
    """
    old, young = draft(new_intent_id(NOW - 2 * HOUR)), draft(new_intent_id(NOW))
    commit(store, old, young)
    assert store.collect_garbage(NOW, HOUR) == 1
    assert store.collect_garbage(NOW - 2 * HOUR, HOUR) == 0
    assert store.control().intent_watermark_ms == NOW - HOUR
    assert commit(store, old)[0].reason == failures_pb2.REASON_INTENT_EXPIRED


def test_a_clock_that_is_ahead_closes_no_window(store):
    """A replica whose clock was 25 hours ahead collected once: every replica refused every intent
    as expired, for good.
    """
    old, young = draft(new_intent_id(NOW - 25 * HOUR)), draft(new_intent_id(NOW))
    commit(store, old, young)
    assert store.collect_garbage(NOW + 25 * HOUR, 24 * HOUR) == 1
    assert store.control().intent_watermark_ms == NOW - 24 * HOUR
    assert commit(store, draft(new_intent_id(NOW + 1)))[0].verdict is Verdict.NEW


def test_an_intent_that_is_ahead_closes_no_window_that_the_clock_leaves_open(store):
    """A client five minutes ahead signed: those whose clocks are right keep the whole of the
    retention.
    """
    ahead, right = draft(new_intent_id(NOW + HOUR // 12)), draft(new_intent_id(NOW - HOUR))
    commit(store, ahead)
    assert store.collect_garbage(NOW, HOUR) == 0
    assert store.control().intent_watermark_ms == NOW - HOUR
    assert commit(store, right)[0].verdict is Verdict.NEW


def test_a_ledger_without_a_row_has_nothing_to_forget_and_its_watermark_stays(store):
    """A replica that collected at its first start, before its clock was set, would close the window
    before anybody had signed.
    """
    assert store.collect_garbage(NOW + 25 * HOUR, HOUR) == 0
    assert store.control().intent_watermark_ms == 0


def test_a_retention_longer_than_the_time_since_1970_forgets_nothing(store):
    """A clock that a dead battery set to 1970 asks for a watermark before that: it stays where it
    is.
    """
    commit(store, draft())
    assert store.collect_garbage(1, HOUR) == 0
    assert store.control().intent_watermark_ms == 0


def test_the_watermark_itself_is_inside_the_window(store):
    commit(store, draft(new_intent_id(NOW + HOUR)))
    store.collect_garbage(NOW + HOUR, HOUR)
    at, below = draft(new_intent_id(NOW)), draft(new_intent_id(NOW - 1))
    assert [r.verdict for r in commit(store, at, below)] == [Verdict.NEW, Verdict.REFUSED]


def test_garbage_collection_is_bounded_and_a_row_that_is_left_still_answers(store):
    drafts = [draft(new_intent_id(NOW - 2 * HOUR + at)) for at in range(10)]
    commit(store, *drafts, draft(new_intent_id(NOW)))
    assert store.collect_garbage(NOW, HOUR, limit=4) == 4
    assert commit(store, drafts[0])[0].reason == failures_pb2.REASON_INTENT_EXPIRED
    assert commit(store, drafts[9])[0].stored.result == drafts[9].result
    assert (
        store.resolve(APP, drafts[9].intent_id, "orders", b"never", NOW).state is IntentState.DONE
    )
    assert store.collect_garbage(NOW, HOUR, limit=100) == 6
    assert store.collect_garbage(NOW, HOUR, limit=100) == 0


def test_the_revocation_of_a_handle_goes_long_after_its_end_and_no_other_does(store):
    """An incident with thousands of revoked serials would weigh on each snapshot for ever."""
    month = 30 * 24 * HOUR
    store.revoke(admin_pb2.REVOCATION_KIND_HANDLE, "old", lambda _: b"leaf", NOW - 1)
    store.revoke(admin_pb2.REVOCATION_KIND_HANDLE, "young", lambda _: b"leaf", NOW)
    store.revoke(admin_pb2.REVOCATION_KIND_KEY, "shop/orders", lambda _: b"leaf", NOW - 1)
    epoch = store.control().revocation_epoch
    commit(store, draft(new_intent_id(NOW + month + HOUR)))
    store.collect_garbage(NOW + month + HOUR, HOUR)
    assert [one.target for one in store.revocations()[1]] == ["young", "shop/orders"]
    assert store.control().revocation_epoch == epoch


# Revocation.


def test_revoke_raises_the_epoch_and_older_decisions_cannot_commit(store, second):
    before = epoch(second)
    raised, index = store.revoke(2, "shop/orders", lambda _: b"revocation", NOW)
    assert (raised, index) == (before + 1, 0)
    item = draft()
    with pytest.raises(EpochMovedError):
        second.commit(before, [item], NOW)
    assert second.find(APP, [item.intent_id]) == {}
    assert second.control().tree_size == 1
    assert second.commit(raised, [item], NOW)[0].verdict is Verdict.NEW
    assert second.revocations() == (raised, [Revocation(raised, 2, "shop/orders", NOW)])


def test_what_is_revoked_stands_until_it_is_lifted(store, second):
    """A second revocation of the same thing is lifted with the first, what is wider is not."""
    by = "spiffe://capsign.test/responder"
    first, _ = store.revoke(4, "shop/orders", lambda _: b"first", NOW, by)
    again, _ = store.revoke(4, "shop/orders", lambda _: b"again", NOW + 1)
    wider, _ = store.revoke(5, "shop", lambda _: b"wider", NOW + 2)
    standing = store.write(lambda tx, _: registry.standing(tx, 4, "shop/orders"))
    assert standing == [first, again]
    index = store.write(
        lambda tx, head: registry.lift(tx, head, 4, "shop/orders", lambda at: b"%d" % at, NOW + 3)
    )
    assert check_log(store)[index] == b"%d" % epoch(store)
    lifted = epoch(store)
    assert lifted == wider + 1, "what is in flight is decided anew"
    assert second.revocations() == (lifted, [Revocation(wider, 5, "shop", NOW + 2)])
    assert second.revocation_history() == [
        Revocation(wider, 5, "shop", NOW + 2),
        Revocation(again, 4, "shop/orders", NOW + 1, "", lifted),
        Revocation(first, 4, "shop/orders", NOW, by, lifted),
    ]
    assert second.revocation_history(again, 1) == [
        Revocation(first, 4, "shop/orders", NOW, by, lifted)
    ]
    assert store.write(lambda tx, _: registry.standing(tx, 4, "shop/orders")) == []


def test_the_epoch_is_compared_on_the_careful_path_too(store):
    item = draft()
    commit(store, item)
    stale = epoch(store)
    store.revoke(1, "x", lambda _: b"revocation", NOW)
    with pytest.raises(EpochMovedError):
        store.commit(stale, [item, item], NOW)


def test_no_commit_passes_under_an_epoch_after_its_revocation_answered(store, second):
    """One replica signs in a loop while the other revokes: every leaf after the revocation's was
    decided under its epoch.
    """
    stop = threading.Event()
    started = threading.Event()

    def sign():
        while not stop.is_set():
            now = epoch(second)
            item = draft(leaf_epoch := new_intent_id(NOW), leaf=b"%d " % now + leaf_epoch)
            try:
                second.commit(now, [item], NOW)
            except EpochMovedError:
                continue
            started.set()

    thread = threading.Thread(target=sign)
    thread.start()
    try:
        assert started.wait(30)
        revoked = [
            store.revoke(1, f"handle-{at}", lambda _: b"revocation", NOW) for at in range(10)
        ]
    finally:
        stop.set()
        thread.join()
    entries = check_log(store)
    assert {entries[index] for _, index in revoked} == {b"revocation"}
    for raised, index in revoked:
        assert all(
            int(entry.split()[0]) >= raised
            for entry in entries[index + 1 :]
            if entry != b"revocation"
        )


# Key versions.


def key_row(
    version: int = 1, state=signing_pb2.KEY_STATE_PRE_ACTIVATION, **changes
) -> KeyVersionRow:
    fields = {
        "tenant": "shop",
        "key": "orders",
        "version": version,
        "state": state,
        "algorithms": (1, 2, 7),
        "label": f"capsign/shop/orders/{version}",
        "check_value": os.urandom(8),
        "created_ms": NOW,
    }
    return KeyVersionRow(**(fields | changes))


def leaf_of(words: bytes):
    """The entry names the epoch that it was made for."""
    return lambda epoch: b"%s %d" % (words, epoch)


def test_key_versions_are_listed_oldest_first_as_they_were_added(store, second):
    rows = [key_row(2), key_row(1), key_row(1, key="refunds", algorithms=())]
    before = epoch(store)
    added = [store.add_key_version(row, leaf_of(b"made"), NOW) for row in rows]
    assert added == [(before + 1, 0), (before + 2, 1), (before + 3, 2)]
    assert second.key_versions() == rows
    assert second.entries(0, 3) == [b"made %d" % raised for raised, _ in added]


def test_a_version_is_added_once(store):
    store.add_key_version(key_row(), leaf_of(b"made"), NOW)
    with pytest.raises(FailureError) as caught:
        store.add_key_version(key_row(), leaf_of(b"made"), NOW)
    assert caught.value.reason == failures_pb2.REASON_ILLEGAL_TRANSITION
    assert store.control().tree_size == 1


def test_moving_a_version_raises_the_epoch_and_keeps_its_first_activation(store):
    row = key_row()
    store.add_key_version(row, leaf_of(b"made"), NOW)
    before = epoch(store)
    moved = store.move_key_version(row, KeyEvent.ACTIVATE, leaf_of(b"activated"), NOW + 5)
    assert moved == (before + 1, 1)
    assert epoch(store) == before + 1
    active = dataclasses.replace(
        row,
        state=signing_pb2.KEY_STATE_ACTIVE,
        activated_ms=NOW + 5,
        activation_epoch=1,
        published_ms=NOW + 5,
        since_ms=NOW + 5,
    )
    assert store.key_versions() == [active]
    store.move_key_version(active, KeyEvent.SUSPEND, leaf_of(b"suspended"), NOW + 6)
    suspended = dataclasses.replace(active, state=signing_pb2.KEY_STATE_SUSPENDED, since_ms=NOW + 6)
    assert store.key_versions() == [suspended]
    store.move_key_version(suspended, KeyEvent.RESUME, leaf_of(b"again"), NOW + 7)
    assert store.key_versions() == [dataclasses.replace(active, since_ms=NOW + 7)]


def test_a_published_version_is_activated_under_the_epoch_that_it_reserved(store, second):
    """What verifiers were shown before is what signs after: also if another version of the key was
    published in between.
    """
    for version in (1, 2, 3):
        store.add_key_version(key_row(version), leaf_of(b"made"), NOW)

    def move(version: int, event: KeyEvent) -> KeyVersionRow:
        row = next(row for row in second.key_versions() if row.version == version)
        store.move_key_version(row, event, leaf_of(b"moved"), NOW + version)
        return next(row for row in second.key_versions() if row.version == version)

    published = move(2, KeyEvent.PUBLISH)
    assert (published.state, published.published_ms, published.activation_epoch) == (
        signing_pb2.KEY_STATE_PRE_ACTIVATION,
        NOW + 2,
        2,
    )
    assert move(3, KeyEvent.PUBLISH).activation_epoch == 3
    assert move(1, KeyEvent.ACTIVATE).activation_epoch == 1
    active = move(2, KeyEvent.ACTIVATE)
    assert (active.activation_epoch, active.published_ms, active.activated_ms) == (
        2,
        NOW + 2,
        NOW + 2,
    )


def test_of_two_that_publish_at_once_one_is_refused(store, second):
    """The second would reserve another epoch, and what was shown first would never sign."""
    row = key_row()
    store.add_key_version(row, leaf_of(b"made"), NOW)
    store.move_key_version(row, KeyEvent.PUBLISH, leaf_of(b"published"), NOW)
    before = store.control()
    (published,) = store.key_versions()
    for seen in (row, published):
        with pytest.raises(FailureError) as caught:
            second.move_key_version(seen, KeyEvent.PUBLISH, leaf_of(b"published"), NOW)
        assert caught.value.reason == failures_pb2.REASON_ILLEGAL_TRANSITION
    assert second.key_versions() == [published]
    assert second.control() == before


def test_no_two_versions_of_a_key_have_one_activation_epoch(store):
    """The database itself keeps them apart, whoever writes."""
    store.add_key_version(key_row(1, activation_epoch=7), leaf_of(b"made"), NOW)
    store.add_key_version(key_row(1, key="refunds", activation_epoch=7), leaf_of(b"made"), NOW)
    with pytest.raises(FailureError) as caught:
        store.add_key_version(key_row(2, activation_epoch=7), leaf_of(b"made"), NOW)
    assert caught.value.reason == failures_pb2.REASON_ILLEGAL_TRANSITION
    assert [row.version for row in store.key_versions()] == [1, 1]


def test_a_number_that_an_earlier_release_gave_as_an_epoch_is_not_given_again(store):
    """It counted epochs by publications: version 3 was the second that was published. Version 2
    cannot have its own number any more, and the next version is above all that was given.
    """
    store.add_key_version(key_row(1, activation_epoch=1), leaf_of(b"made"), NOW)
    store.add_key_version(key_row(2), leaf_of(b"made"), NOW)
    store.add_key_version(key_row(3, activation_epoch=2), leaf_of(b"made"), NOW)
    store.move_key_version(key_row(2), KeyEvent.PUBLISH, leaf_of(b"published"), NOW)
    assert [row.activation_epoch for row in store.key_versions()] == [1, 4, 2]
    wanted = KeyClaim("shop", "orders", 1, bytes(16), NOW + 1000)
    assert store.claim_key(wanted, 3, NOW).version == 5


def test_an_activation_epoch_of_a_key_is_never_used_twice(store, monkeypatch):
    """A table that lets an older version sign again must not give the subkeys of its earlier life.
    The table does not allow it; the store counts for any table.
    """
    again = {KeyEvent.ACTIVATE: signing_pb2.KEY_STATE_ACTIVE}
    moves = {**KEY_VERSION.moves, signing_pb2.KEY_STATE_DEACTIVATED: again}
    table = Table(KEY_VERSION.thing, KEY_VERSION.initial, moves)
    monkeypatch.setattr("capsign_adapter.model.key_versions.KEY_VERSION", table)
    first, second_version = key_row(1), key_row(2)
    for row in (first, second_version, key_row(1, key="refunds")):
        store.add_key_version(row, leaf_of(b"made"), NOW)

    def row_of(version):
        return next(
            row for row in store.key_versions() if (row.key, row.version) == ("orders", version)
        )

    for version, event, epoch_after in (
        (1, KeyEvent.ACTIVATE, 1),
        (2, KeyEvent.ACTIVATE, 2),
        (1, KeyEvent.DEACTIVATE, 1),
        (1, KeyEvent.ACTIVATE, 3),
    ):
        store.move_key_version(row_of(version), event, leaf_of(b"moved"), NOW)
        assert row_of(version).activation_epoch == epoch_after


def test_a_version_that_is_elsewhere_is_not_moved(store):
    row = key_row()
    store.add_key_version(row, leaf_of(b"made"), NOW)
    store.move_key_version(row, KeyEvent.ACTIVATE, leaf_of(b"activated"), NOW)
    before = store.control()
    with pytest.raises(FailureError) as caught:
        store.move_key_version(row, KeyEvent.DESTROY, leaf_of(b"destroyed"), NOW)
    assert caught.value.reason == failures_pb2.REASON_ILLEGAL_TRANSITION
    with pytest.raises(FailureError):
        store.move_key_version(key_row(9), KeyEvent.ACTIVATE, leaf_of(b"absent"), NOW)
    assert store.control() == before


def test_a_move_that_the_table_does_not_know_is_refused_by_the_store(store):
    """It took any state from its caller, who was to have asked the table."""
    row = key_row()
    store.add_key_version(row, leaf_of(b"made"), NOW)
    before = store.control()
    with pytest.raises(FailureError) as caught:
        store.move_key_version(row, KeyEvent.SUSPEND, leaf_of(b"suspended"), NOW)
    assert caught.value.reason == failures_pb2.REASON_ILLEGAL_TRANSITION
    assert store.key_versions() == [row]
    assert store.control() == before


# Evidence.


def test_append_gives_the_first_index(store):
    assert store.append([b"a", b"b"], NOW) == 0
    assert store.append([], NOW) == 2
    assert store.append([b"", b"d" * 65_535], NOW) == 2
    assert check_log(store) == [b"a", b"b", b"", b"d" * 65_535]


def test_an_entry_that_no_bundle_can_hold_is_refused(store):
    with pytest.raises(ValueError, match="65535"):
        store.append([b"x" * 65_536], NOW)
    assert store.control().tree_size == 0


def test_every_range_of_the_log_can_be_read(store):
    lengths = ((10,), (10, 10, 10), (0, 0), (3,), (4, 4, 0x0404, 4, 5))
    for each in lengths:
        store.append([os.urandom(length) for length in each], NOW)
    entries, hashes = store.entries(0, 12), store.hashes(0, 0, 12)
    assert [*map(len, entries)] == [length for each in lengths for length in each]
    for first in range(14):
        for count in range(14):
            assert store.entries(first, count) == entries[first : first + count]
            assert store.hashes(0, first, count) == hashes[first : first + count]


def test_tiles_above_the_leaves(store):
    store.append([b"%d" % at for at in range(255)], NOW)
    assert store.hashes(1, 0, 10) == []
    store.append([b"255"], NOW)
    assert len(store.hashes(1, 0, 10)) == 1
    store.append([b"%d" % at for at in range(256, 1025)], NOW)
    assert len(store.hashes(1, 1, 10)) == 3
    check_log(store)


def test_an_audit_batch_is_taken_once(store):
    first = audit()
    taken = store.submit_audit(first, NOW)
    assert (taken.accepted_through, taken.leaf_index, taken.duplicate) == (3, 0, False)
    second = audit(first, records=2)
    assert store.submit_audit(second, NOW).accepted_through == 5
    again = store.submit_audit(first, NOW)
    assert (again.accepted_through, again.leaf_index, again.duplicate) == (5, 0, True)
    assert check_log(store) == [first.leaf, second.leaf]
    assert store.audit_batches() == [(0, APP, first.batch), (1, APP, second.batch)]


def test_an_audit_batch_out_of_order_is_refused_with_where_it_stands(store):
    first = audit()
    second = audit(first)
    with pytest.raises(AuditOutOfOrderError) as caught:
        store.submit_audit(second, NOW)
    assert caught.value.accepted_through == 0
    store.submit_audit(first, NOW)
    wrong = [
        audit(second),
        dataclasses.replace(second, previous=b"x" * 32),
        dataclasses.replace(second, previous=b""),
        dataclasses.replace(second, first_sequence=5),
        dataclasses.replace(second, first_sequence=3),
        dataclasses.replace(first, batch_hash=b"x" * 32),
        dataclasses.replace(first, first_sequence=1, last_sequence=2),
    ]
    for bad in wrong:
        with pytest.raises(AuditOutOfOrderError) as caught:
            store.submit_audit(bad, NOW)
        assert caught.value.accepted_through == 3
    assert store.control().tree_size == 1


def test_nothing_follows_a_close_and_boots_are_apart(store):
    last = audit(closes=True)
    store.submit_audit(last, NOW)
    with pytest.raises(AuditOutOfOrderError):
        store.submit_audit(audit(last), NOW)
    assert store.submit_audit(last, NOW).duplicate
    assert not store.submit_audit(audit(), NOW).duplicate
    # The same boot id from another workload is another boot.
    assert not store.submit_audit(audit(boot_id=last.boot_id, workload=OTHER_APP), NOW).duplicate


def test_audit_batches_are_read_by_leaf_and_workload(store):
    mine, theirs, more = audit(), audit(workload=OTHER_APP), audit()
    for batch in (mine, theirs, more):
        store.append([b"between"], NOW)
        store.submit_audit(batch, NOW)
    assert store.audit_batches() == [
        (1, APP, mine.batch),
        (3, OTHER_APP, theirs.batch),
        (5, APP, more.batch),
    ]
    assert store.audit_batches(APP) == [(1, APP, mine.batch), (5, APP, more.batch)]
    assert store.audit_batches(first_leaf=2, limit=1) == [(3, OTHER_APP, theirs.batch)]
    assert store.audit_batches("spiffe://capsign.test/nobody") == []


def test_checkpoints_only_grow(store, second):
    store.append([b"a", b"b", b"c"], NOW)
    two, three = (
        Checkpoint(2, b"2" * 32, b"note two", NOW),
        Checkpoint(3, b"3" * 32, b"note three", NOW + 1),
    )
    store.save_checkpoint(two)
    assert second.latest_checkpoint() == two
    store.save_checkpoint(three)
    store.save_checkpoint(two)
    assert second.latest_checkpoint() == three
    with pytest.raises(ValueError, match="larger"):
        store.save_checkpoint(Checkpoint(4, b"4" * 32, b"note four", NOW))
    with pytest.raises(ValueError, match="second root"):
        store.save_checkpoint(Checkpoint(3, b"x" * 32, b"note three", NOW))
    assert second.latest_checkpoint() == three


def test_a_published_checkpoint_gets_more_cosignatures_and_never_smaller(store, second):
    assert store.published_checkpoint() is None
    store.append([b"a", b"b", b"c"], NOW)
    two, three = Checkpoint(2, b"2" * 32, b"two", NOW), Checkpoint(3, b"3" * 32, b"three", NOW)
    more = Checkpoint(3, b"3" * 32, b"three and more", NOW + 1)
    for one in (two, three, more, two):
        store.publish_checkpoint(one)
    assert second.published_checkpoint() == more
    assert second.latest_checkpoint() is None


def test_the_first_contradiction_stands_for_all_replicas(store, second):
    assert store.contradiction() is None
    first = Contradiction("The log has 3 leaves.", b"note", NOW)
    store.save_contradiction(first)
    second.save_contradiction(Contradiction("Another.", b"other", NOW + 1))
    assert store.contradiction() == second.contradiction() == first


# Several threads and replicas.


def test_fifty_concurrent_callers_of_one_intent_get_one_leaf_and_the_same_bytes(store, second):
    item = draft()
    barrier = threading.Barrier(50)
    results = []

    def sign(at: int) -> None:
        mine = item._replace(result=b"signature %d" % at, leaf=b"leaf %d" % at)
        barrier.wait()
        results.append((at, (store if at % 2 else second).commit(1, [mine], NOW)[0]))

    threads = [threading.Thread(target=sign, args=(at,)) for at in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [at for at, result in results if result.verdict is Verdict.NEW]
    assert len(results) == 50
    assert len(winners) == 1
    stored = b"signature %d" % winners[0]
    assert {result.stored.result for _, result in results if result.verdict is Verdict.REPLAY} == {
        stored
    }
    assert check_log(store) == [b"leaf %d" % winners[0]]


def test_what_one_replica_wrote_the_other_reads_at_once(store, second):
    item = draft()
    commit(store, item)
    assert second.find(APP, [item.intent_id])[item.intent_id].result == item.result
    assert second.control() == store.control()


def test_a_closed_store_says_so(place):
    opened = place.open()
    opened.close()
    with pytest.raises(StoreUnavailableError):
        opened.control()
    with pytest.raises(StoreUnavailableError):
        opened.append([b"x"], NOW)
    opened.close()
