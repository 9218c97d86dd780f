"""When "nothing found" may be believed, on a session whose answers are written down."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from capsign_adapter.token.interface import KeyExistsError, KeyMissingError, TokenUnavailableError
from capsign_adapter.token.objects import EXPANDED_KEPT, Objects
from capsign_adapter.token.session import Kind


def handle(label, identity=b"id"):
    key = SimpleNamespace(label=label, id=identity, destroyed=0)
    key.destroy = lambda: setattr(key, "destroyed", key.destroyed + 1)
    return key


class ScriptedSession:
    """Each login shows one of `logins`, a list of labels of secrets; an exception in it is a login
    that fails.
    """

    def __init__(self, *logins):
        self.logins = [
            [handle(label) for label in login] if isinstance(login, list) else login
            for login in logins
        ]
        self.generation = 0

    def renew(self):
        self.generation += 1
        if isinstance(self.logins[self.generation], Exception):
            raise self.logins[self.generation]

    def search(self, kind, label=None, identity=None):
        held = self.logins[self.generation] if kind is Kind.SECRET else []
        return [key for key in held if label in (None, key.label) and identity in (None, key.id)]

    def expand(self, root, info):
        return handle(f"{root.label} {info!r}")


GONE = TokenUnavailableError("gone")


def test_what_is_there_costs_no_login():
    session = ScriptedSession(["a"])
    objects = Objects(session, "token")
    assert objects.secret("a") is objects.secret("a")
    assert session.generation == 0


def test_absence_needs_two_fresh_logins():
    session = ScriptedSession([], [], [])
    with pytest.raises(KeyMissingError):
        Objects(session, "token").secret("a")
    assert session.generation == 2


def test_what_a_stale_session_hides_is_found_by_a_fresh_one():
    session = ScriptedSession([], ["a"])
    assert Objects(session, "token").secret("a").label == "a"


@pytest.mark.parametrize(
    "logins", [([], GONE), ([], [], GONE)], ids=["gone before the second look", "gone after it"]
)
def test_a_token_that_goes_while_we_look_is_unavailable_and_not_empty(logins):
    for ask in ("secret", "any_key", "destroy"):
        with pytest.raises(TokenUnavailableError):
            getattr(Objects(ScriptedSession(*logins), "token"), ask)("a")
    with pytest.raises(TokenUnavailableError):
        Objects(ScriptedSession(*logins), "token").make(
            "a", lambda identity: pytest.fail("made on a token that is gone")
        )


def test_labels_must_look_the_same_twice():
    assert Objects(ScriptedSession([], ["b", "a"], ["a", "b"]), "token").labels() == ["a", "b"]
    with pytest.raises(TokenUnavailableError, match="changed while"):
        Objects(ScriptedSession(["a"], ["a"], []), "token").labels()


def test_handles_do_not_outlive_their_session():
    session = ScriptedSession(["a"], ["a"])
    objects = Objects(session, "token")
    before = objects.secret("a"), objects.expanded("a", b"info")
    session.renew()
    assert objects.secret("a") is not before[0]
    assert objects.expanded("a", b"info") is not before[1]
    # it died with its session: its handle may name another object by now
    assert before[1].destroyed == 0


def test_derived_keys_are_kept_up_to_a_bound_and_the_oldest_unused_goes():
    objects = Objects(ScriptedSession(["a"]), "token")
    kept = [objects.expanded("a", b"%d" % number) for number in range(EXPANDED_KEPT)]
    assert objects.expanded("a", b"0") is kept[0]
    objects.expanded("a", b"one more")
    assert [key.destroyed for key in kept] == [0, 1] + [0] * (EXPANDED_KEPT - 2)


def test_destroying_a_root_destroys_what_was_derived_from_it():
    session = ScriptedSession(["a", "b"])
    objects = Objects(session, "token")
    derived, other, root = (
        objects.expanded("a", b"info"),
        objects.expanded("b", b"info"),
        objects.secret("a"),
    )
    objects.destroy("a")
    assert (derived.destroyed, other.destroyed, root.destroyed) == (1, 0, 1)


def test_of_two_that_make_one_label_the_later_withdraws():
    session = ScriptedSession([], [], [], [])
    theirs, mine = handle("a", b"theirs"), None

    def maker(identity):
        nonlocal mine
        assert len(identity) == 16
        mine = handle("a", identity)
        session.logins[2].append(mine)
        session.logins[3] += [
            theirs,
            mine,
        ]  # another process was quicker, and only a fresh login shows it

    with pytest.raises(TokenUnavailableError, match="another process"):
        Objects(session, "token").make("a", maker)
    assert (mine.destroyed, theirs.destroyed) == (1, 0)


def test_what_was_made_alone_stays():
    session = ScriptedSession([], [], [], [])
    mine = handle("a")
    Objects(session, "token").make("a", lambda identity: session.logins[3].append(mine))
    assert mine.destroyed == 0


def test_a_taken_label_is_refused_before_anything_is_made():
    with pytest.raises(KeyExistsError):
        Objects(ScriptedSession(["a"]), "token").make("a", lambda identity: pytest.fail("made"))
