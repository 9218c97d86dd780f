"""The certificate authorities in the store, on every engine."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.lifecycle import AuthorityEvent, AuthorityState
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.drafts import NOW, check_log

YEAR_MS = 365 * 86_400_000


def row(version: int = 1, **changes: object) -> AuthorityRow:
    made = AuthorityRow(
        version,
        AuthorityState.PREPARED,
        b"DER %d" % version,
        f"capsign/authority/{version}",
        b"8 bytes!",
        NOW,
        NOW + YEAR_MS,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def active(store):
    store.add_authority(row(), 0, b"prepared", NOW)
    store.move_authority(row(), AuthorityEvent.ACTIVATE, b"activated", NOW + 1)
    (found,) = store.authorities()
    return found


def refused(call, *arguments) -> None:
    with pytest.raises(FailureError) as caught:
        call(*arguments)
    assert caught.value.reason == reasons.REASON_ILLEGAL_TRANSITION


S, E = AuthorityState, AuthorityEvent
CELLS = {
    S.PREPARED: {E.ACTIVATE: S.ACTIVE},
    S.ACTIVE: {E.RETIRE: S.RETIRED},
    S.RETIRED: {},
}
"""Written out by hand, apart from the code. Nobody asks a service for these moves: the schedule and
`capsign-adapter authority` bring them about, and this is their only way into the store.
"""


@pytest.mark.parametrize("event", list(AuthorityEvent))
@pytest.mark.parametrize("state", list(AuthorityState))
def test_i7_every_event_in_every_state_of_an_authority(store, state, event):
    assert set(CELLS) == set(S)
    store.add_authority(row(), 0, b"prepared", NOW)
    for step in {S.PREPARED: [], S.ACTIVE: [E.ACTIVATE], S.RETIRED: list(E)}[state]:
        store.move_authority(*store.authorities(), step, b"a step", NOW)
    (before,) = store.authorities()
    assert before.state is state
    entries = check_log(store)
    if event in CELLS[state]:
        store.move_authority(before, event, b"moved", NOW + 1)
        (after,) = store.authorities()
        assert after.state is CELLS[state][event]
        assert check_log(store) == [*entries, b"moved"]
    else:
        refused(store.move_authority, before, event, b"refused", NOW + 1)
        assert store.authorities() == [before]
        assert check_log(store) == entries


def test_a_life_from_leaf_to_leaf(store, second):
    assert store.authorities() == []
    assert store.add_authority(row(), 0, b"prepared", NOW) == 0
    assert second.authorities() == [row()]
    assert second.move_authority(row(), AuthorityEvent.ACTIVATE, b"activated", NOW + 1) == 1
    moved = row(state=AuthorityState.ACTIVE, activated_ms=NOW + 1)
    assert store.authorities() == [moved]
    assert store.promise_authority(1, NOW + 500)
    assert store.move_authority(moved, AuthorityEvent.RETIRE, b"retired", NOW + 2) == 2
    assert second.authorities() == [
        dataclasses.replace(
            moved, state=AuthorityState.RETIRED, retired_ms=NOW + 2, signed_until_ms=NOW + 500
        )
    ]
    assert check_log(store) == [b"prepared", b"activated", b"retired"]


def test_no_move_raises_the_epoch(store, active):
    before = store.control().revocation_epoch
    store.promise_authority(1, NOW + 5)
    store.add_authority(row(2), 1, b"prepared", NOW)
    store.move_authority(row(2), AuthorityEvent.ACTIVATE, b"activated", NOW)
    assert store.control().revocation_epoch == before


def test_one_is_prepared_at_a_time_and_a_version_is_added_once(store, active):
    refused(store.add_authority, row(1), 0, b"again", NOW)
    store.add_authority(row(2), 1, b"prepared", NOW)
    refused(store.add_authority, row(3), 2, b"another", NOW)
    assert [found.version for found in store.authorities()] == [1, 2]
    assert check_log(store) == [b"prepared", b"activated", b"prepared"]


def test_one_is_added_to_those_that_its_maker_knew_of(store, active):
    """A replica decided when there was none, or when the newest was about to end; meanwhile another
    made one, which signs now.
    """
    refused(store.add_authority, row(2), 0, b"prepared", NOW)
    store.add_authority(
        row(5), 1, b"prepared", NOW
    )  # numbers whose keys are in the token already are stepped over
    store.move_authority(row(5), AuthorityEvent.ACTIVATE, b"activated", NOW)
    refused(store.add_authority, row(6), 1, b"prepared", NOW)
    assert [found.version for found in store.authorities()] == [1, 5]


def test_what_is_elsewhere_is_not_moved(store, active):
    refused(store.move_authority, row(1), AuthorityEvent.ACTIVATE, b"again", NOW)
    refused(store.move_authority, row(9), AuthorityEvent.ACTIVATE, b"absent", NOW)
    assert len(check_log(store)) == 2


def test_a_promise_never_falls_and_only_the_one_that_signs_makes_one(store, active):
    assert store.promise_authority(1, NOW + 900)
    assert store.promise_authority(1, NOW + 400)
    assert store.authorities()[0].signed_until_ms == NOW + 900
    store.add_authority(row(2), 1, b"prepared", NOW)
    assert not store.promise_authority(2, NOW + 900)
    store.move_authority(row(2), AuthorityEvent.ACTIVATE, b"activated", NOW)
    assert not store.promise_authority(1, NOW + 2000)
    assert store.promise_authority(2, NOW + 2000)
    assert [found.signed_until_ms for found in store.authorities()] == [NOW + 900, NOW + 2000]


def test_of_replicas_that_move_at_once_one_does(store, second):
    store.add_authority(row(), 0, b"prepared", NOW)
    together, outcomes = threading.Barrier(2), []

    def move(one) -> None:
        together.wait()
        try:
            outcomes.append(one.move_authority(row(), AuthorityEvent.ACTIVATE, b"activated", NOW))
        except FailureError as error:
            outcomes.append(error.row.name)

    threads = [threading.Thread(target=move, args=(one,)) for one in (store, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["1", "ILLEGAL_TRANSITION"]
    assert check_log(store) == [b"prepared", b"activated"]


@pytest.mark.parametrize(
    "engine", ["sqlite_place", pytest.param("postgres_place", marks=pytest.mark.postgres)]
)
def test_a_store_of_the_first_release_gets_the_table(request, engine):
    place = request.getfixturevalue(engine)
    old = place.earlier(through=1)
    old.append([b"evidence of then"], NOW)
    old.close()
    store = place.open()
    assert store.authorities() == []
    store.add_authority(row(), 0, b"prepared", NOW)
    assert check_log(store) == [b"evidence of then", b"prepared"]
    store.close()
