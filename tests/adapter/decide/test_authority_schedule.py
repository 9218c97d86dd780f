"""No certificate is ever valid whose authority somebody may not know yet, or not know any more."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from capsign_adapter.decide import authority_schedule
from capsign_adapter.decide.authority_schedule import Action, Lifetimes
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.lifecycle import AuthorityState
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

LIFETIMES = Lifetimes(svid_ms=60_000, authority_ms=600_000, propagation_ms=40_000)
START = 1_800_000_000_000


class Shelf:
    """The table of authorities as the store's interface promises it."""

    def __init__(self, now_ms: int, lifetimes: Lifetimes = LIFETIMES) -> None:
        self.lifetimes = lifetimes
        self.rows: list[AuthorityRow] = []
        self.prepare(now_ms)

    def prepare(self, now_ms: int) -> None:
        if any(row.state == AuthorityState.PREPARED for row in self.rows):
            return
        number = len(self.rows) + 1
        row = AuthorityRow(
            number,
            AuthorityState.PREPARED,
            b"%d" % number,
            "",
            b"",
            now_ms,
            now_ms + self.lifetimes.authority_ms,
        )
        self.rows.append(row)

    def move(self, row: AuthorityRow, **changes: object) -> None:
        at = row.version - 1
        if self.rows[at].state == row.state:
            self.rows[at] = dataclasses.replace(self.rows[at], **changes)

    def promise(self, version: int, until_ms: int) -> None:
        if version == max(row.version for row in self.rows if row.state == AuthorityState.ACTIVE):
            row = self.rows[version - 1]
            self.rows[version - 1] = dataclasses.replace(
                row, signed_until_ms=max(until_ms, row.signed_until_ms)
            )

    def look(self, now_ms: int) -> tuple[AuthorityRow, ...]:
        """What a replica does at each look: every step that is due."""
        for _ in range(10):
            step = authority_schedule.due(self.rows, self.lifetimes, now_ms)
            if step is None:
                break
            if step.row is None:
                self.prepare(now_ms)
            elif step.action == Action.ACTIVATE:
                self.move(step.row, state=AuthorityState.ACTIVE, activated_ms=now_ms)
            else:
                self.move(step.row, state=AuthorityState.RETIRED, retired_ms=now_ms)
        return tuple(self.rows)


class Fleet(RuleBasedStateMachine):
    """Three replicas that look when they like, but not too rarely; agents that hold any bundle that
    is not too old.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.shelf = Shelf(START)
        self.seen = [self.shelf.look(START)] * 3
        self.looked = [START] * 3
        self.held: list[tuple[int, tuple[AuthorityRow, ...]]] = []
        """Bundles that were served, each with the last moment at which somebody may have got it."""
        self.begun: list[tuple[AuthorityRow, int]] = []
        self.issued: list[tuple[AuthorityRow, int]] = []

    def _look(self, replica: int) -> None:
        self.held.append((self.now, authority_schedule.trusted(self.seen[replica])))
        self.seen[replica] = self.shelf.look(self.now)
        self.looked[replica] = self.now

    @rule(replica=st.integers(0, 2))
    def look(self, replica: int) -> None:
        self._look(replica)

    @rule(milliseconds=st.integers(1, LIFETIMES.poll_ms))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds
        for replica in range(3):
            if self.now - self.looked[replica] > LIFETIMES.poll_ms:
                self._look(replica)

    @rule(times=st.integers(1, 60))
    def much_time_passes(self, times: int) -> None:
        for _ in range(times):
            self.time_passes(LIFETIMES.poll_ms)

    @rule(milliseconds=st.integers(1, LIFETIMES.authority_ms * 2))
    def the_deployment_is_off(self, milliseconds: int) -> None:
        for replica in range(3):
            self.held.append((self.now, authority_schedule.trusted(self.seen[replica])))
        self.now += milliseconds
        self.begun.clear()
        for replica in range(3):
            self.seen[replica] = self.shelf.look(self.now)
            self.looked[replica] = self.now
        assert authority_schedule.signing(self.shelf.rows, self.now) is not None

    @rule()
    @precondition(lambda self: not authority_schedule.under_way(self.shelf.rows))
    def an_operator_rotates(self) -> None:
        self.shelf.prepare(self.now)

    @rule(replica=st.integers(0, 2))
    def a_certificate_is_begun(self, replica: int) -> None:
        for _ in range(3):
            row = authority_schedule.signing(self.seen[replica], self.now)
            if row is None:
                return
            _, not_after_ms = authority_schedule.validity(row, LIFETIMES, self.now)
            promise_ms = authority_schedule.promise_for(row, LIFETIMES, not_after_ms)
            if promise_ms is None:
                self.begun.append((row, not_after_ms))
                return
            self.shelf.promise(row.version, promise_ms)
            self.held.append((self.now, authority_schedule.trusted(self.seen[replica])))
            self.seen[replica] = tuple(self.shelf.rows)

    @rule()
    @precondition(lambda self: self.begun)
    def a_certificate_is_handed_out(self) -> None:
        """Maybe long after it was begun: a thread may stand still."""
        self.issued.append(self.begun.pop(0))

    @invariant()
    def whoever_is_up_to_date_can_verify_whatever_is_valid(self) -> None:
        self.issued = [(row, end) for row, end in self.issued if end >= self.now]
        self.held = [
            (end, bundle) for end, bundle in self.held if end >= self.now - LIFETIMES.propagation_ms
        ]
        bundles = [bundle for _, bundle in self.held] + [
            authority_schedule.trusted(rows) for rows in self.seen
        ]
        for (row, end), bundle in itertools.product(self.issued, bundles):
            assert end <= row.expires_ms
            versions = {known.version for known in bundle}
            # Whoever knows expired authorities only can verify nothing at all, and has to begin
            # anew.
            if any(known.expires_ms > self.now for known in bundle):
                assert row.version in versions, (
                    f"{row.version} signed until {end}, and a bundle of {versions} is about"
                )

    @invariant()
    def a_bundle_is_small_and_its_number_only_rises(self) -> None:
        numbers = [authority_schedule.sequence(rows) for rows in self.seen]
        assert max(numbers) <= authority_schedule.sequence(self.shelf.rows)
        assert (
            1 <= len(authority_schedule.trusted(self.shelf.rows)) <= authority_schedule.MOST_TRUSTED
        )

    @invariant()
    def nobody_waits_longer_than_a_look_for_who_signs(self) -> None:
        """A successor that is not ripe when the one before ends (the deployment was off) signs from
        the next look on.
        """
        if authority_schedule.signing(self.shelf.rows, self.now) is None:
            ended = max(
                row.expires_ms for row in self.shelf.rows if row.state == AuthorityState.ACTIVE
            )
            assert self.now - ended <= LIFETIMES.poll_ms


def test_every_valid_certificate_verifies_with_every_bundle_that_is_about():
    run_state_machine_as_test(
        Fleet, settings=settings(max_examples=80, stateful_step_count=40, deadline=None)
    )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_activation", lambda prepared, newest, lifetimes: prepared.created_ms),
        ("_retirement", lambda row, lifetimes: row.activated_ms),
        ("promise_for", lambda row, lifetimes, not_after_ms: None),
    ],
    ids=["signs before it is known", "leaves too early", "promises nothing"],
)
def test_a_wrong_rule_is_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(authority_schedule, name, wrong)
    quick = settings(
        max_examples=400,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
    )
    with pytest.raises(AssertionError, match="is about"):
        run_state_machine_as_test(Fleet, settings=quick)


def grown(*moves: tuple[int, str]) -> tuple[Shelf, int]:
    """A shelf after some time, in look steps, with rotations at those times (ms after the
    start).
    """
    shelf = Shelf(START)
    shelf.look(START)
    for at_ms, what in moves:
        if what == "rotate":
            shelf.prepare(START + at_ms)
        else:
            shelf.look(START + at_ms)
    return shelf, START + moves[-1][0] if moves else START


def test_the_first_authority_signs_at_once():
    shelf, _ = grown()
    assert [row.state for row in shelf.rows] == [AuthorityState.ACTIVE]
    assert authority_schedule.sequence(shelf.rows) == 1


def test_a_successor_that_is_not_ripe_when_the_other_ends_signs_from_then_on():
    end = LIFETIMES.authority_ms
    shelf, now = grown((end - 1, "rotate"), (end - 1, "look"))
    assert authority_schedule.signing(shelf.rows, now + 1) is None
    step = authority_schedule.next_step(shelf.rows, LIFETIMES, now)
    assert step is not None
    assert (step.action, step.at_ms) == (Action.ACTIVATE, now + 1)
    shelf.look(now + 1)
    assert authority_schedule.signing(shelf.rows, now + 1).version == 2


def test_no_authority_is_made_from_nothing():
    assert authority_schedule.next_step([], LIFETIMES, START) is None
    assert authority_schedule.timeline([], LIFETIMES) == []


def test_a_successor_is_prepared_after_two_thirds_of_a_life():
    shelf, _ = grown((399_999, "look"))
    assert len(shelf.rows) == 1
    shelf.look(START + 400_000)
    assert [row.state for row in shelf.rows] == [AuthorityState.ACTIVE, AuthorityState.PREPARED]


def test_the_timeline_tells_what_then_happens():
    shelf, now = grown((1_000, "rotate"))
    shelf.promise(1, now + LIFETIMES.svid_ms)
    told = authority_schedule.timeline(shelf.rows, LIFETIMES)
    assert [(step.action, step.row.version) for step in told] == [
        (Action.ACTIVATE, 2),
        (Action.RETIRE, 1),
    ]
    for step in told:
        before = shelf.look(step.at_ms - 1)
        after = shelf.look(step.at_ms)
        assert (before[step.row.version - 1].state, after[step.row.version - 1].state) == {
            Action.ACTIVATE: (AuthorityState.PREPARED, AuthorityState.ACTIVE),
            Action.RETIRE: (AuthorityState.ACTIVE, AuthorityState.RETIRED),
        }[step.action]
        # It goes on signing until the very end.
        if step.action == Action.ACTIVATE:
            assert authority_schedule.signing(before, step.at_ms - 1).version == 1
            shelf.rows[0] = dataclasses.replace(
                shelf.rows[0], signed_until_ms=step.at_ms + LIFETIMES.svid_ms
            )
    assert authority_schedule.sequence(shelf.rows) == 3


def test_validity_is_in_whole_seconds_and_within_the_authoritys_own():
    row = AuthorityRow(1, AuthorityState.ACTIVE, b"", "", b"", START, START + 30_500, START)
    assert authority_schedule.validity(row, LIFETIMES, START + 999) == (
        START - 60_000,
        START + 30_000,
    )
    assert authority_schedule.promise_for(row, LIFETIMES, START + 30_000) == START + 30_500


@pytest.mark.parametrize(
    ("svid_s", "propagation_s"), [(1, 1), (3600, 600), (86_400, 1), (60, 86_400)]
)
def test_the_least_life_of_an_authority_is_enough(svid_s, propagation_s):
    draft = Lifetimes(svid_s * 1000, 1, propagation_s * 1000)
    lifetimes = Lifetimes(draft.svid_ms, draft.least_authority_ms + 3, draft.propagation_ms)
    shelf, now = Shelf(START, lifetimes), START
    while len(shelf.rows) < 4:
        shelf.look(now)
        row = authority_schedule.signing(shelf.rows, now)
        assert row is not None
        _, end = authority_schedule.validity(row, lifetimes, now)
        assert end >= (now + lifetimes.svid_ms) // 1000 * 1000, "a certificate was cut short"
        shelf.promise(row.version, authority_schedule.promise_for(row, lifetimes, end) or 0)
        coming = authority_schedule.next_step(shelf.rows, lifetimes, now)
        assert coming is not None
        now = min(coming.at_ms, now + lifetimes.authority_ms // 500)
