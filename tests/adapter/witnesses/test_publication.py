"""A checkpoint is shown once as many witnesses have cosigned it as the policy demands, and what
witnesses hold is believed against the store.
"""

from dataclasses import replace

import pytest
from capsign_adapter.sign.checkpoints import Checkpoints
from capsign_adapter.sign.retention import Retention
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.open import open_store
from capsign_adapter.witnesses.asking import Asking, Outcome, WitnessedLog
from capsign_adapter.witnesses.client import NoAnswerError, Reply
from capsign_adapter.witnesses.publication import Publication
from capsign_evidence.note import add_lines, parse_note
from capsign_evidence.tlog_policy import parse_policy
from capsign_evidence.witness_protocol import SIZE_TYPE
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.crashing_checkpoints import FixedToken
from support.fake_witness import FakeWitness

NOW = 1_800_000_000_000
ROUND_MS = 10_000


class World:
    """A log with three witnesses; time is in `ms`."""

    def __init__(self, folder, quorum="group q 2 w1 w2 w3\nquorum q\n"):
        folder.mkdir(mode=0o700, exist_ok=True)
        self.store = open_store(f"sqlite://{folder}/store.db", create=True)
        self.ms = 0
        self.checkpoints = Checkpoints(
            self.store, FixedToken(), "capsign.test/log", elapsed_ms=lambda: self.ms
        )
        self.witnesses = [FakeWitness(f"w{number}", number) for number in (1, 2, 3)]
        lines = "".join(
            f"witness w{number} {one.key.text()} http://w{number}\n"
            for number, one in enumerate(self.witnesses, 1)
        )
        self.policy = parse_policy((lines + quorum).encode())
        self.outcomes = []
        self.join()

    def join(self):
        """A replica begins: nothing of what it knows is left."""
        self.publication = Publication(
            self.store, self.policy, lambda: self.checkpoints.latest, lambda: self.ms, ROUND_MS
        )
        self.checkpoints.show_by(self.publication)
        self.asking = [self.asks(one) for one in self.witnesses]

    def asks(self, witness):
        return Asking(
            witness.key.name,
            witness,
            [witness.key],
            WitnessedLog(
                self.checkpoints.keys.verifiers, self.store, self.checkpoints.hold_against
            ),
            self.publication,
            lambda: self.ms / 1000,
            self.outcomes.append,
        )

    def grow(self, *leaves):
        self.store.append([leaf.encode() for leaf in leaves], NOW)
        return self.checkpoints.signed(NOW).tree_size

    def turn(self, *numbers):
        self.outcomes.clear()
        for number in numbers or (1, 2, 3):
            self.asking[number - 1].look()
        return list(self.outcomes)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "log")
    yield made
    made.store.close()


def not_witnessed(call, *arguments):
    with pytest.raises(FailureError) as caught:
        call(*arguments)
    assert caught.value.reason == reasons.REASON_NOT_WITNESSED


def test_nobody_sees_a_checkpoint_before_the_quorum_has_cosigned_it(world):
    size = world.grow("a", "b", "c")
    assert world.turn(1) == [Outcome.COSIGNED]
    not_witnessed(world.checkpoints.current, NOW)
    not_witnessed(world.checkpoints.covering, 0, NOW)
    assert world.checkpoints.stored() is None
    assert world.turn(2) == [Outcome.COSIGNED]
    shown = world.checkpoints.current(NOW)
    assert set(world.policy.open(shown.note, world.checkpoints.keys.verifiers[0]).witnesses) == {
        "w1",
        "w2",
    }
    assert world.store.published_checkpoint() == shown
    assert world.checkpoints.covering(size - 1, NOW) == shown == world.checkpoints.stored()
    not_witnessed(world.checkpoints.covering, size, NOW)


def test_nothing_leaves_the_store_before_the_quorum_has_cosigned_it(world, tmp_path):
    def retention():
        return Retention(
            world.store,
            tmp_path / "cold",
            1,
            world.checkpoints.witnessed,
            lambda: bytes(32),
            lambda: NOW + 10,
        )

    world.store.use_cold_files(tmp_path / "cold")
    world.grow(*map(str, range(300)))
    world.turn(1)
    assert not retention().step()
    assert world.store.moved_leaves() == 0
    weaker, demanded = replace(world.policy, quorum="w1"), world.policy
    world.policy = weaker
    world.join()
    world.turn(1)
    world.policy = demanded
    world.join()
    assert world.checkpoints.stored() is not None, "published while less was demanded"
    assert not retention().step()
    assert world.store.moved_leaves() == 0
    world.turn(1, 2)
    retention().step()
    assert world.store.moved_leaves() == 256


def test_a_later_cosignature_is_added_to_what_is_shown(world):
    world.grow("a")
    world.turn()
    names = world.policy.open(
        world.checkpoints.current(NOW).note, world.checkpoints.keys.verifiers[0]
    ).witnesses
    assert set(names) == {"w1", "w2", "w3"}


def test_one_blocked_witness_holds_up_nothing(world):
    world.witnesses[0].down = True
    for leaf in "abc":
        size = world.grow(leaf)
        assert world.turn(2, 3) == [Outcome.COSIGNED] * 2
        assert world.checkpoints.current(NOW).tree_size == size
    assert world.turn(1) == [Outcome.UNAVAILABLE]
    assert world.turn(1) == [], "it is asked again after a while"
    world.witnesses[0].down = False
    world.ms += 60_000
    assert world.turn(1) == [Outcome.COSIGNED]


def test_a_candidate_stays_while_the_log_grows_so_that_cosignatures_add_up(world):
    """Each witness took the newest tree: none ever had two cosignatures."""
    size = world.grow("a")
    world.turn(1)
    world.grow("b")
    world.turn(2)
    assert world.checkpoints.current(NOW).tree_size == size


def test_a_candidate_that_waited_too_long_is_followed_by_a_newer_one(world):
    world.grow("a")
    world.turn(1)
    newer = world.grow("b")
    world.ms += ROUND_MS
    assert world.turn(2, 1) == [Outcome.COSIGNED] * 2
    assert world.checkpoints.current(NOW).tree_size == newer


def test_a_witness_is_met_where_it_is(world):
    world.grow("a", "b", "c")
    world.turn()
    world.join()  # a replica that knows nothing of where the witnesses are
    world.grow("d", "e")
    assert world.turn() == [Outcome.COSIGNED] * 3
    assert [one.held.size for one in world.witnesses] == [5, 5, 5]


def test_another_replica_that_was_before_us_is_no_fault(world, tmp_path):
    world.grow("a", "b")
    world.turn()
    first = world.publication
    world.grow("c")
    behind = world.checkpoints.latest
    world.grow("d")
    world.turn()
    late = Publication(world.store, world.policy, lambda: behind, lambda: 0, ROUND_MS)
    world.publication = late
    world.asking = [world.asks(one) for one in world.witnesses]
    assert world.turn() == [Outcome.OVERTAKEN] * 3
    assert world.checkpoints.fault() == ""
    assert first.shown(world.checkpoints.latest).tree_size == 4


def test_a_witness_that_shows_an_older_checkpoint_than_it_holds_does_not_lie(world):
    """What it serves is cached. It holds a larger tree already, that another replica brought."""
    world.grow("a")
    world.turn()
    older = world.witnesses[0].note
    world.grow("b")
    behind = world.checkpoints.latest
    world.grow("c")
    world.publication.candidate()
    world.turn()
    late = Publication(world.store, world.policy, lambda: behind, lambda: 0, ROUND_MS)
    world.publication = late
    asking = world.asks(world.witnesses[0])
    world.witnesses[0].note = older
    world.outcomes.clear()
    asking.look()
    asked = world.witnesses[0].asked
    asking.look()
    assert world.outcomes == [Outcome.OVERTAKEN]
    assert world.witnesses[0].asked == asked, "it waits for a larger candidate"
    assert late.candidate() == behind, "which is not given up for what was not shown"


def test_no_quorum_shows_at_once_and_adds_what_comes(tmp_path):
    world = World(tmp_path / "log", "quorum none\n")
    size = world.grow("a")
    assert world.checkpoints.current(NOW).tree_size == size
    assert len(parse_note(world.checkpoints.current(NOW).note).lines) == 2
    world.turn()
    assert len(parse_note(world.checkpoints.current(NOW).note).lines) == 5
    assert len(parse_note(world.checkpoints.covering(0, NOW).note).lines) == 5
    world.store.close()


def test_what_was_published_outlives_the_process(world):
    world.grow("a")
    world.turn()
    shown = world.checkpoints.current(NOW)
    world.join()
    assert world.checkpoints.current(NOW) == shown


def test_a_store_that_is_older_than_what_a_witness_holds_is_noticed(world, tmp_path):
    """The database went back with the file beside it; the witness did not."""
    world.grow("a", "b", "c")
    world.turn()
    older = World(tmp_path / "older")
    older.witnesses, older.policy = world.witnesses, world.policy
    older.join()
    older.grow("a")
    with pytest.raises(FailureError) as caught:
        older.asking[0].remembered()
    assert caught.value.reason == reasons.REASON_LOG_ROLLED_BACK
    assert "witness w1.test" in caught.value.detail
    assert older.checkpoints.fault() == "log_rolled_back"
    older.store.close()


@pytest.mark.parametrize("leaves", [["x"], ["x", "y", "z"], ["x", "y", "z", "u"]])
def test_a_fork_of_what_a_witness_holds_is_noticed_in_its_turn(world, tmp_path, leaves):
    world.grow("a", "b", "c")
    world.turn()
    fork = World(tmp_path / "fork")
    fork.witnesses, fork.policy = world.witnesses, world.policy
    fork.join()
    fork.grow(*leaves)
    with pytest.raises(FailureError) as caught:
        fork.turn(1)
    assert caught.value.reason == reasons.REASON_LOG_ROLLED_BACK
    assert fork.outcomes == [Outcome.INCONSISTENT]
    assert fork.turn(1) == [], "it is asked again later"
    fork.store.append([b"more"], NOW)
    with pytest.raises(FailureError):
        fork.checkpoints.signed(NOW)
    fork.store.close()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, "text/plain", b""),
        Reply(200, "text/plain", b"<html>"),
        Reply(302, "text/plain", b""),
        Reply(404, "text/plain", b""),
        Reply(409, "text/plain", b"7\n"),
        Reply(409, SIZE_TYPE, b"0\n"),
        Reply(409, SIZE_TYPE, b"many\n"),
        Reply(409, SIZE_TYPE, b"900\n"),
    ],
)
def test_a_witness_that_answers_nonsense_cosigns_nothing_and_breaks_nothing(world, reply):
    world.witnesses[0].says = reply
    world.grow("a")
    assert world.turn(1) == [Outcome.REFUSED]
    assert world.turn(2, 3) == [Outcome.COSIGNED] * 2
    assert world.checkpoints.fault() == ""


def test_a_witness_that_claims_a_fork_and_shows_none_is_not_believed(world):
    world.witnesses[0].says = Reply(422, "text/plain", b"no")
    world.grow("a")
    assert world.turn(1) == [Outcome.INCONSISTENT]
    world.witnesses[1].says = Reply(503, "text/plain", b"no")
    assert world.turn(2) == [Outcome.UNAVAILABLE]
    world.witnesses[0].note = add_lines(b"x\n1\n\n\xe2\x80\x94 x AAAAAAAA\n", [])
    assert world.asking[0].remembered() == 0
    assert world.checkpoints.fault() == ""


def test_a_witness_that_is_down_says_nothing_about_the_store(world):
    world.witnesses[0].down = True
    with pytest.raises(NoAnswerError):
        world.asking[0].remembered()
    assert world.checkpoints.fault() == ""


@pytest.mark.parametrize("happened", [False, True], ids=["without effect", "with effect"])
def test_a_store_that_fails_in_the_middle_of_publication_loses_nothing(world, happened):
    """The quorum has cosigned, and the store does not say whether it keeps that: nobody is shown
    more than it keeps, and the next turn goes on.
    """
    world.grow("a")
    world.turn(1)
    real = world.store.publish_checkpoint

    def fails(checkpoint):
        if happened:
            real(checkpoint)
        raise StoreUnavailableError("the disk is gone")

    world.store.publish_checkpoint = fails
    with pytest.raises(StoreUnavailableError):
        world.turn(2)
    if happened:
        assert world.checkpoints.current(NOW) == world.store.published_checkpoint()
    else:
        not_witnessed(world.checkpoints.current, NOW)
    world.store.publish_checkpoint = real
    world.join()
    world.turn()
    assert world.checkpoints.current(NOW).tree_size == 1


def test_how_long_the_quorum_is_missed_is_told(world):
    assert world.publication.behind_s(0, NOW + 5000, NOW) == 0
    assert world.publication.behind_s(1, NOW + 5000, NOW) == 5
    size = world.grow("a")
    world.turn()
    assert world.publication.behind_s(size, NOW + 9000, NOW) == 0
    assert world.publication.behind_s(size + 1, NOW + 9000, NOW) == 9
