"""Looks of replicas at one store: what is found has a row and an entry, and goes as it came."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from capsign_adapter.decide.policy import Lifetime
from capsign_adapter.drift.own_look import Own
from capsign_adapter.drift.watch import Outside, Watch
from capsign_adapter.keys import labels
from capsign_adapter.keys.provision import make_authority
from capsign_adapter.model.drift import LIVE_MS, Difference, KeyUse, ReplicaReport
from capsign_adapter.sign.key_uses import KeyUseCounter
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_evidence.drift_leaf import DriftKind, digest_of
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import decode
from capsign_wire.types.v1 import algorithms_pb2
from support.adapter_rig import POLICY
from support.fake_token import Stored

K = DriftKind
STRANGER = "capsign/demo/stranger/1"


class Looker:
    """One replica's watch over a rig; `own` is what it sees of itself."""

    def __init__(self, rig, number: int = 1, software: str = "1.0") -> None:
        self.rig = rig
        self.now_ms = rig.clock.now_ms()
        self.own: tuple[Difference, ...] = ()
        self.told: list[str] = []
        self.pauses: list[object] = []
        self.meanwhile = lambda: None
        self.uses = KeyUseCounter()
        self.policy_file = rig.policy.digest.hex()
        identity = ReplicaReport(
            bytes([number]) * 16, self.now_ms + number, 0, software, "", (("control.poll_ms", "1"),)
        )
        self.watch = Watch(
            rig.token,
            rig.store,
            rig.snapshots,
            identity,
            lambda _: Own(self.policy_file, self.own),
            self.uses,
            Outside(lambda: self.now_ms, self.pause, lambda one: self.told.append(one.subject)),
        )

    def pause(self) -> None:
        self.pauses.append(None)
        self.meanwhile()

    def look(self, later_ms: int = 0) -> list[tuple[DriftKind, str, str]]:
        """Look, and tell what is there by now."""
        self.now_ms += later_ms
        assert not self.watch.look()
        rows = self.rig.store.drift().rows
        return [(r.difference.kind, r.difference.subject, r.difference.aspect) for r in rows]


@pytest.fixture
def one(rig):
    return Looker(rig)


def entries(rig) -> list:
    """Those about drift, oldest first."""
    size = rig.store.control().tree_size
    found = []
    for entry in rig.store.entries(0, size):
        try:
            decoded = decode(entry)
        except ValueError:
            continue
        if hasattr(decoded, "drift"):
            found.append(decoded)
    return found


def acts(rig) -> list[tuple[Act, str]]:
    return [(entry.act, entry.subject) for entry in entries(rig)]


def test_a_deployment_as_it_was_made_has_no_drift(one):
    assert one.look() == []
    assert one.pauses == []
    assert acts(one.rig) == []


def test_an_object_that_somebody_made_is_named_and_goes_when_it_goes(one):
    token = one.rig.token
    token.generate_secret(STRANGER)
    assert one.look() == [(K.UNKNOWN_OBJECT, STRANGER, "object")]
    assert one.told == [STRANGER]
    assert one.look(20_000) == [(K.UNKNOWN_OBJECT, STRANGER, "object")]
    token.destroy(STRANGER)
    assert one.look(20_000) == []
    assert acts(one.rig) == [(Act.UNKNOWN_OBJECT, STRANGER), (Act.DRIFT_GONE, STRANGER)]
    came, went = entries(one.rig)
    assert came.digest == went.digest
    assert came.digest == digest_of(K.UNKNOWN_OBJECT, STRANGER, "object", "nothing", "secret-key")
    assert (came.since_ms, went.since_ms, went.time_ms) == (
        came.time_ms,
        came.time_ms,
        came.time_ms + 40_000,
    )


def test_a_key_that_was_replaced_shows_by_its_attributes_and_its_check_value(one):
    row = next(row for row in one.rig.store.key_versions() if row.derived)
    one.rig.token.destroy(row.label)
    one.rig.token.import_secret(row.label, bytes(32))
    found = one.look()
    assert {aspect for _, _, aspect in found} == {
        "local",
        "always-sensitive",
        "never-extractable",
        "check-value",
    }
    assert {(kind, subject) for kind, subject, _ in found} == {(K.KEY_ATTRIBUTE, row.label)}


def test_a_key_that_is_gone_is_missing_and_comes_back_from_its_backup(one):
    token, label = one.rig.token, labels.LOG
    held = token.objects.pop(label)
    assert one.look() == [(K.MISSING_OBJECT, label, "object")]
    token.objects[label] = held
    assert one.look() == []


def test_what_is_in_the_making_is_not_told(one):
    """An authority is in the token a moment before its row is in the store."""
    made = []

    def recorded():
        made.append(one.rig.token.destroy(labels.authority(1)))

    make_authority(one.rig.token, 1)
    one.meanwhile = recorded
    assert one.look() == []
    assert (len(one.pauses), len(made)) == (1, 1)
    assert acts(one.rig) == []


def test_while_the_token_gives_no_answer_what_is_known_of_it_stays(one):
    one.rig.token.generate_secret(STRANGER)
    one.look()
    one.rig.token.lose()
    one.own = (Difference(K.TLS, "listener/people", "oldest", "at least 1.3", "1.2"),)
    tls = (K.TLS, "replica/010101010101/listener/people", "oldest")
    assert one.look() == [tls, (K.UNKNOWN_OBJECT, STRANGER, "object")]
    one.rig.token.restore()
    one.rig.token.destroy(STRANGER)
    assert one.look() == [tls]


def test_replicas_that_find_the_same_tell_it_once(one):
    two = Looker(one.rig.beside(), 2)
    one.rig.token.generate_secret(STRANGER)
    assert one.look() == two.look() == [(K.UNKNOWN_OBJECT, STRANGER, "object")]
    one.rig.token.destroy(STRANGER)
    assert two.look() == one.look() == []
    assert acts(one.rig) == [(Act.UNKNOWN_OBJECT, STRANGER), (Act.DRIFT_GONE, STRANGER)]


def test_who_saw_it_before_another_saw_it_gone_does_not_bring_it_back(one):
    """The first replica has seen the object twice when the second one tells of it, and tells that
    it is gone, before the first one writes.
    """
    two, store = Looker(one.rig.beside(), 2), one.rig.store
    one.rig.token.generate_secret(STRANGER)

    def late(*arguments):
        store.honestly("settle_drift")
        assert two.look()
        one.rig.token.destroy(STRANGER)
        assert two.look() == []
        return store.settle_drift(*arguments)

    store.instead(settle_drift=late)
    assert one.look() == []
    assert acts(one.rig) == [(Act.UNKNOWN_OBJECT, STRANGER), (Act.DRIFT_GONE, STRANGER)]


def test_a_store_that_fails_between_finding_and_telling_tells_it_at_the_next_look(one):
    def failing(*_):
        raise StoreUnavailableError("away")

    one.rig.token.generate_secret(STRANGER)
    with one.rig.store.for_now(settle_drift=failing):
        with pytest.raises(StoreUnavailableError):
            one.watch.look()
        assert one.rig.store.drift().rows == ()
    assert one.look() == [(K.UNKNOWN_OBJECT, STRANGER, "object")]
    assert acts(one.rig) == [(Act.UNKNOWN_OBJECT, STRANGER)]


def test_a_replica_of_another_version_is_named_until_it_ends(one):
    two = Looker(one.rig.beside(), 2, software="0.9")
    two.look()
    three = Looker(one.rig.beside(), 3)
    three.look()
    named = [(K.SOFTWARE, "replica/020202020202", "version")]
    assert one.look() == named
    two.watch.end()
    assert one.look() == []
    assert three.look() == []


def test_what_a_replica_that_was_killed_found_of_itself_ends_minutes_later(one):
    two = Looker(one.rig.beside(), 2)
    two.own = (Difference(K.CONFIGURATION, "file", "control.poll_ms", "2", "1"),)
    found = two.look()
    assert found == [(K.CONFIGURATION, "replica/020202020202/file", "control.poll_ms")]
    assert one.look(LIVE_MS - 5_000) == found
    assert one.look(10_000) == []
    assert [report.replica for report in one.rig.store.drift().reports] == [b"\x01" * 16]


def test_a_policy_file_that_is_not_in_force(one):
    one.policy_file = "ab" * 32
    subject = f"policy-file/{'ab' * 32}"
    assert one.look() == [(K.POLICY_FILE, subject, "digest")]
    assert acts(one.rig) == [(Act.DRIFT_FOUND, subject)]


def test_a_version_that_outlives_the_cryptoperiod_of_a_new_policy(one):
    shorter = POLICY.replace(
        "name: orders, kind: derived,", "name: orders, lifetime: {cryptoperiod: 1m}, kind: derived,"
    )
    assert one.look() == []
    one.rig.apply(shorter)
    one.policy_file = one.rig.policy.digest.hex()
    assert one.look(60_000) == [(K.LIFETIME, "key/demo/orders/1", "cryptoperiod")]
    assert one.rig.policy.key("demo", "orders").lifetime == Lifetime(60_000)


def test_a_label_of_somebody_else_is_in_no_entry(one):
    one.rig.token.objects["Look here\n: \u00fc"] = Stored(os.urandom(32), None, strong=True)
    ((kind, subject, _),) = one.look()
    assert (kind, subject) == (K.UNKNOWN_OBJECT, "Look here\\n: \\xfc")
    (entry,) = entries(one.rig)
    assert entry.subject.startswith("object/")
    assert b"Look" not in entry.encode()


def test_uses_of_keys_are_written_down_with_a_look(one):
    one.rig.charges.uses = one.uses
    now = one.rig.clock.now_ms()
    for _ in range(3):
        one.rig.sign(b"a", b"b")
    one.rig.sign(b"a", algorithm=algorithms_pb2.ALGORITHM_RS256)  # refused
    one.look()
    (use,) = one.rig.store.key_uses()
    assert (use.tenant, use.key, use.version, use.count) == ("demo", "orders", 1, 6)
    assert use.last_ms >= now
    one.look()
    assert one.rig.store.key_uses() == [use]


def test_what_could_not_be_written_of_uses_is_written_later(one):
    def failing(*_):
        raise StoreUnavailableError("away")

    use = KeyUse("demo", "orders", 1, 5, 7)
    one.uses.add([use])
    with one.rig.store.for_now(add_key_uses=failing), pytest.raises(StoreUnavailableError):
        one.watch.look()
    one.uses.add([replace(use, last_ms=6, count=1)])
    one.look()
    assert one.rig.store.key_uses() == [replace(use, last_ms=6, count=8)]
