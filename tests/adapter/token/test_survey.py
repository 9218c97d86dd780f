"""What a token holds, listed in steps, on a session whose answers are written down."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from capsign_adapter.model.drift import TokenObject
from capsign_adapter.token.interface import TokenContestedError, TokenUnavailableError
from capsign_adapter.token.survey import FRESH_EVERY, STEP, Survey


class ScriptedSession:
    """Each search shows the next of `searches`, the last one again and again."""

    def __init__(self, *searches: list[str]) -> None:
        self.searches = list(searches)
        self.generation = 0
        self.open = 0

    def renew(self) -> None:
        self.generation += 1
        self.open = 0

    def beside(self):
        self.open += 1
        return SimpleNamespace(close=self.close)

    def close(self) -> None:
        self.open -= 1

    def objects(self, beside):
        shown = self.searches.pop(0) if len(self.searches) > 1 else self.searches[0]
        return (TokenObject("secret-key", label) for label in shown)


class Thread:
    """The token's thread: runs what it is given, and something else `between`."""

    def __init__(self, session: ScriptedSession) -> None:
        self.session = session
        self.steps = 0
        self.between = lambda: None

    def run(self, operation):
        self.steps += 1
        result = operation()
        self.between()
        return result


def survey(*searches):
    session = ScriptedSession(*searches)
    thread = Thread(session)
    return session, thread, Survey(session, thread.run)


def labels(found):
    return [one.label for one in found]


def test_others_are_served_after_every_few_objects():
    many = [f"k{number:04}" for number in range(10 * STEP)]
    session, thread, all_of_it = survey(many)
    assert labels(all_of_it.contents()) == many
    assert thread.steps == 2 * 11  # two logins
    assert session.open == 0


def test_what_was_seen_before_needs_no_login():
    """Each login makes every key of the signers be searched for again."""
    session, _, all_of_it = survey(["a", "b"])
    all_of_it.contents()
    assert session.generation == 1
    for _ in range(FRESH_EVERY):
        assert labels(all_of_it.contents()) == ["a", "b"]
    assert session.generation == 1
    all_of_it.contents()
    assert session.generation == 2


def test_what_is_new_counts_once_a_fresh_login_shows_it_too():
    session, _, all_of_it = survey(["a"], ["a"], ["b", "a"], ["a", "b"])
    all_of_it.contents()
    assert labels(all_of_it.contents()) == ["a", "b"]
    assert session.generation == 2


def test_a_session_that_hides_something_is_not_believed():
    """The running login shows nothing, as that of a token which is going away does."""
    session, _, all_of_it = survey(["a"], ["a"], [], ["a"], ["a"])
    all_of_it.contents()
    assert labels(all_of_it.contents()) == ["a"]
    assert session.generation == 3


def test_what_changes_all_the_time_is_contested():
    _, _, all_of_it = survey(["a"], ["b"], ["c"])
    with pytest.raises(TokenContestedError):
        all_of_it.contents()


def test_a_session_that_another_call_loses_meanwhile():
    session, thread, all_of_it = survey([f"k{number}" for number in range(2 * STEP)])
    thread.between = session.renew
    with pytest.raises(TokenContestedError):
        all_of_it.contents()
    assert session.open == 0


def test_a_token_that_stops_answering_leaves_no_session_open():
    session, thread, all_of_it = survey([f"k{number}" for number in range(2 * STEP)])

    def away():
        thread.between = lambda: None
        raise TokenUnavailableError("away")

    thread.between = away
    with pytest.raises(TokenUnavailableError):
        all_of_it.contents()
    assert session.open == 0
