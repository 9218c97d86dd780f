"""A version of a key is in the token and in the store, or in neither, wherever its maker or its
destroyer dies.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_adapter.custody.clearing import Clearing
from capsign_adapter.custody.making import CLAIM_SECONDS, Author, make_version
from capsign_adapter.decide.policy import Key, KeyKind
from capsign_adapter.keys import labels, provision
from capsign_adapter.keys.destruction import objects_of, still_answers
from capsign_adapter.keys.provision import KeyWeakError
from capsign_adapter.model.lifecycle import KeyEvent
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.open import open_store
from capsign_adapter.token.interface import TokenUnavailableError
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import decode
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2, signing_pb2
from support.fake_token import FakeToken
from support.interposed import Interposed

NOW = 1_800_000_000_000
LATER = NOW + CLAIM_SECONDS * 1000
OPERATOR = "spiffe://capsign.test/operator/dev"
BY = Author(OPERATOR, bytes(32))
DERIVED = Key(
    "shop",
    "orders",
    KeyKind.DERIVED,
    frozenset({algorithms.ALGORITHM_ED25519, algorithms.ALGORITHM_ES256}),
)
DIRECT = Key("shop", "release", KeyKind.DIRECT, frozenset({algorithms.ALGORITHM_ES384}))


class Killed(BaseException):
    """The process ends here: nothing after this line is run."""


class Ground:
    """A token, a store, and what one replica clears away."""

    def __init__(self, directory) -> None:
        self.token = Interposed(FakeToken())
        self.store = Interposed(open_store(f"sqlite://{directory}/store.db", create=True))
        self.answering: list[str] = []
        self.now = NOW

    def make(self, key: Key = DERIVED, newest: int = 0):
        row, _, _ = make_version(key, self.token, self.store, BY, self.now, newest=newest)
        return row

    def clearing(self) -> Clearing:
        """Of a replica that has just started."""
        return Clearing(self.token, self.store, lambda: BY, lambda: self.now, self.answering.append)

    def look(self) -> None:
        self.clearing().look(self.store.key_versions())

    def destroy(self, row) -> None:
        """As the execution of its proposal does, in the store."""
        for event in (KeyEvent.DEACTIVATE, KeyEvent.DESTROY):
            current = next(each for each in self.store.key_versions() if each.name == row.name)
            self.store.move_key_version(current, event, lambda _: b"moved", self.now)

    def labels(self) -> list[str]:
        """Of what a version is made of: what keeps the number of a destroyed one is not."""
        return [label for label in self.token.labels() if label not in self.numbers()]

    def numbers(self) -> list[str]:
        """What keeps the numbers of destroyed versions."""
        return [label for label in self.token.labels() if label.endswith("/spent")]

    def acts(self) -> list[Act]:
        """Of the last entries, as far as they are entries."""
        size = self.store.control().tree_size
        return [decode(entry).act for entry in self.store.entries(0, size) if entry != b"moved"]


@pytest.fixture
def ground(tmp_path):
    made = Ground(tmp_path)
    yield made
    made.store.part.close()


def killed(*_, **__):
    raise Killed


@pytest.mark.parametrize(
    "method", ["generate_secret", "generate_key_pair", "hmac", "attributes", "sign"]
)
@pytest.mark.parametrize("key", [DERIVED, DIRECT], ids=["derived", "direct"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_token_that_fails_leaves_nothing(ground, key, method, after):
    """Half of a version stayed in the token when its other half could not be made."""
    ground.token.part.fail(method, after=after)
    try:
        ground.make(key)
    except TokenUnavailableError:
        assert (ground.labels(), ground.store.key_versions()) == ([], [])
        assert ground.store.key_claims() == []
        ground.make(key)
    assert len(ground.store.key_versions()) == 1


def test_a_weak_key_is_destroyed_again(ground):
    honest = ground.token.part.attributes
    ground.token.instead(attributes=lambda label: replace(honest(label), extractable=True))
    with pytest.raises(KeyWeakError):
        ground.make()
    assert (ground.labels(), ground.store.key_claims()) == ([], [])


@pytest.mark.parametrize("died_at", ["generate_secret", "generate_key_pair", "add_key_version"])
def test_what_a_dead_maker_left_is_cleared_away_once_its_claim_is_over(ground, died_at):
    """Its object stayed in the token as one that nothing accounts for, and somebody was woken."""
    part = ground.store if died_at == "add_key_version" else ground.token
    with part.for_now(**{died_at: killed}), pytest.raises(Killed):
        ground.make()
    (claim,) = ground.store.key_claims()
    left = ground.labels()
    ground.look()
    assert (ground.labels(), ground.store.key_claims()) == (left, [claim])
    assert provision.unknown_objects(ground.token, [], [], claims=ground.store.key_claims()) == []
    with pytest.raises(FailureError) as caught:
        ground.make()
    assert caught.value.reason == failures_pb2.REASON_ILLEGAL_TRANSITION
    ground.now = LATER
    ground.look()
    assert (ground.labels(), ground.store.key_claims()) == ([], [])
    assert ground.make().state == signing_pb2.KEY_STATE_ACTIVE


def test_a_commit_that_nobody_knows_of_is_left_to_the_claim(ground):
    """There may be a row: then its key must stay; and if there is none, its claim says so."""
    honest = ground.store.part.add_key_version

    def unknown(*arguments):
        honest(*arguments)
        raise CommitUnknownError("the answer was lost")

    with ground.store.for_now(add_key_version=unknown), pytest.raises(CommitUnknownError):
        ground.make()
    (row,) = ground.store.key_versions()
    ground.now = LATER
    ground.look()
    assert ground.labels() == [row.label, labels.attestation(row.label)]


def test_a_store_that_wrote_nothing_leaves_nothing_in_the_token(ground):
    def unavailable(*_):
        raise StoreUnavailableError("no store")

    with (
        ground.store.for_now(add_key_version=unavailable),
        pytest.raises(StoreUnavailableError),
    ):
        ground.make()
    assert (ground.labels(), ground.store.key_claims()) == ([], [])


def test_algorithms_may_grow_with_the_next_version(ground):
    """The new version has what policy says now; the old one keeps what it was made for."""
    old = ground.make()
    more = replace(DERIVED, algorithms=DERIVED.algorithms | {algorithms.ALGORITHM_ML_DSA_65})
    new = ground.make(more, newest=1)
    assert set(new.algorithms) - set(old.algorithms) == {algorithms.ALGORITHM_ML_DSA_65}
    assert [row.algorithms for row in ground.store.key_versions()] == [
        old.algorithms,
        new.algorithms,
    ]
    assert (new.version, new.state) == (2, signing_pb2.KEY_STATE_PRE_ACTIVATION)


@pytest.mark.parametrize("key", [DERIVED, DIRECT], ids=["derived", "direct"])
def test_what_is_destroyed_in_the_store_ends_in_the_token_at_the_next_look(ground, key):
    """The destroyer died right after its commit: whoever looks next makes it good, once."""
    row = ground.make(key)
    ground.destroy(row)
    assert still_answers(ground.token, row)
    ground.look()
    assert (ground.labels(), still_answers(ground.token, row)) == ([], [])
    (tombstone,) = ground.store.key_versions()
    assert (tombstone.state, tombstone.gone_ms) == (signing_pb2.KEY_STATE_DESTROYED, NOW)
    ground.look()
    assert ground.acts() == [Act.KEY_CREATED, Act.KEY_GONE]
    assert ground.answering == []
    assert ground.numbers() == [labels.spent(row.label)]
    assert provision.unknown_objects(ground.token, [tombstone], []) == []


def test_the_number_of_what_was_destroyed_last_stays_in_the_token(ground):
    """Of an older one it need not: the later version has a higher one."""
    rows = [ground.make(), ground.make(newest=1)]
    ground.destroy(rows[0])
    ground.look()
    assert ground.numbers() == []
    for event in (KeyEvent.ACTIVATE, KeyEvent.DEACTIVATE, KeyEvent.DESTROY):
        current = ground.store.key_versions()[1]
        ground.store.move_key_version(current, event, lambda _: b"moved", ground.now)
    ground.look()
    assert ground.numbers() == [labels.spent(rows[1].label)]
    assert labels.highest_version("shop", "orders", ground.token.labels()) == 2
    # a store of before knows neither version nor number
    assert provision.unknown_objects(ground.token, rows[:1], []) == ground.numbers()
    assert provision.unknown_objects(ground.token, [replace(rows[1], version=3)], []) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_nobody_is_told_that_a_version_is_gone_before_its_number_is_kept(ground, after):
    row = ground.make()
    ground.destroy(row)
    ground.token.part.fail("generate_secret", after=after)
    try:
        ground.look()
    except TokenUnavailableError:
        assert ground.store.key_versions()[0].gone_ms == 0
        ground.look()
    assert ground.numbers() == [labels.spent(row.label)]
    assert ground.store.key_versions()[0].gone_ms == NOW


@pytest.mark.parametrize("died_at", ["destroy", "hmac", "prove_key_gone"])
def test_a_destroyer_may_die_anywhere(ground, died_at):
    row = ground.make()
    ground.destroy(row)
    part = ground.store if died_at == "prove_key_gone" else ground.token
    with part.for_now(**{died_at: killed}), pytest.raises(Killed):
        ground.look()
    assert ground.store.key_versions()[0].gone_ms == 0
    ground.look()
    assert (ground.labels(), ground.store.key_versions()[0].gone_ms) == ([], NOW)


def test_a_key_that_cannot_be_destroyed_keeps_no_other_from_it(ground):
    """One of another tenant did, and with it every tenant's pepper that was to be destroyed."""
    stuck, other = ground.make(), ground.make(DIRECT)
    for row in (stuck, other):
        ground.destroy(row)
    destroy = ground.token.destroy

    def sticks(label):
        if label in objects_of(stuck.label):
            raise TokenUnavailableError("it does not answer")
        return destroy(label)

    with ground.token.for_now(destroy=sticks), pytest.raises(TokenUnavailableError):
        ground.look()
    gone = {row.name: row.gone_ms for row in ground.store.key_versions()}
    assert gone == {stuck.name: 0, other.name: NOW}
    ground.look()
    assert ground.labels() == []


def test_a_token_that_keeps_a_destroyed_key_is_an_incident(ground):
    """It says that it destroyed, and still signs: nobody records that the key is gone."""
    row = ground.make()
    ground.destroy(row)
    with ground.token.for_now(destroy=lambda _: None):
        ground.look()
    assert ground.answering == [row.label, labels.attestation(row.label)]
    assert ground.store.key_versions()[0].gone_ms == 0
    answering = ground.token.part.hmac(row.label, b"x")
    gone = [label for label in ground.labels() if label != row.label]
    with ground.token.for_now(destroy=lambda _: None, labels=list, hmac=lambda *_: answering):
        ground.look()
    assert row.label in ground.answering[2:], "not listed, and used all the same"
    assert gone


def test_a_destroyed_key_that_comes_back_is_seen(ground):
    """A token restored from a backup has it again: it is destroyed again, and said."""
    row = ground.make()
    ground.destroy(row)
    ground.look()
    ground.token.part.generate_secret(row.label)
    tombstones = ground.store.key_versions()
    assert provision.unknown_objects(ground.token, tombstones, []) == [row.label]
    ground.look()
    assert ground.labels() == []
