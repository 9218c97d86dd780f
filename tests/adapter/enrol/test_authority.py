"""The authority of a replica: real SQLite, a token in memory, and a clock that the test turns."""

from __future__ import annotations

import threading

import pytest
from capsign_adapter.decide.authority_schedule import Lifetimes
from capsign_adapter.enrol import roll
from capsign_adapter.enrol.authority import Authority
from capsign_adapter.enrol.roll import Realm
from capsign_adapter.model.lifecycle import AuthorityState
from capsign_adapter.provisioning import provision_all
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.token.interface import TokenUnavailableError
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import decode
from capsign_wire.failures import FailureError
from capsign_wire.settings import SettingsError
from capsign_wire.types.v1 import failures_pb2 as reasons
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.adapter_rig import APP, AdapterRig

LIFETIMES = Lifetimes(svid_ms=60_000, authority_ms=600_000, propagation_ms=40_000)
START = 1_800_000_000_000


def spki_of(private) -> bytes:
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


SPKI = spki_of(ec.generate_private_key(ec.SECP256R1()))


class World:
    """A deployment, and its clock."""

    def __init__(self, rig: AdapterRig) -> None:
        self.rig = rig
        self.now = START
        self.realm = Realm(rig.policy.trust_domain, lambda: rig.policy.digest, LIFETIMES)
        provision_all(rig.policy, rig.token, rig.store, START, self.realm)

    def replica(self, rig: AdapterRig | None = None) -> Authority:
        one = rig or self.rig
        return Authority(one.token, one.store, self.realm)

    def states(self) -> list[AuthorityState]:
        return [row.state for row in self.rig.store.authorities()]

    def acts(self) -> list[tuple[Act, str]]:
        entries = [decode(entry) for entry in self.rig.entries()]
        return [
            (entry.act, entry.target)
            for entry in entries
            if entry.kind.name == "ADMIN" and entry.act >= 30
        ]

    def look(self, authority: Authority, later_ms: int = 0) -> None:
        self.now += later_ms
        authority.look(lambda: self.now)


@pytest.fixture
def world(rig):
    return World(rig)


@pytest.fixture
def authority(world):
    return world.replica()


def verify(issued, bundle) -> None:
    """Raises unless an authority of the bundle issued it."""
    leaf = x509.load_der_x509_certificate(issued.certificates[0])
    roots = [x509.load_der_x509_certificate(der) for der in bundle.authorities]
    (issuer,) = [root for root in roots if root.subject == leaf.issuer]
    leaf.verify_directly_issued_by(issuer)


def test_provision_makes_the_first_and_it_signs_at_once(world, authority):
    assert world.acts() == [
        (Act.AUTHORITY_PREPARED, "authority/1"),
        (Act.AUTHORITY_ACTIVATED, "authority/1"),
    ]
    issued = authority.issue(APP, SPKI, START)
    assert (issued.authority, issued.not_after_ms) == (1, START + LIFETIMES.svid_ms)
    assert authority.bundle().sequence == 1
    verify(issued, authority.bundle())
    assert (
        provision_all(world.rig.policy, world.rig.token, world.rig.store, START, world.realm) == []
    )


def test_a_store_without_an_authority_is_told_what_to_do(rig):
    with pytest.raises(SettingsError, match="capsign-adapter provision"):
        Authority(rig.token, rig.store, Realm("capsign.test", lambda: bytes(32), LIFETIMES))


def test_a_whole_roll(world, authority):
    other = world.replica(world.rig.beside())
    old = authority.issue(APP, SPKI, world.now)
    roll.prepare(
        world.rig.store.authorities(), world.rig.token, world.rig.store, world.realm, world.now
    )
    for one in (authority, other):
        world.look(one)
        assert one.issue(APP, SPKI, world.now).authority == 1
        assert len(one.bundle().authorities) == 2
        assert one.bundle().sequence == 2
    world.look(authority, LIFETIMES.activation_delay_ms)
    new = authority.issue(APP, SPKI, world.now)
    assert new.authority == 2
    # The other replica has not looked yet: what it signs is promised.
    late = other.issue(APP, SPKI, world.now - LIFETIMES.activation_delay_ms)
    for issued in (old, late, new):
        for one in (authority, other):
            verify(issued, one.bundle())
    # Beyond the promise it has to ask, and is told who signs now.
    assert other.issue(APP, SPKI, world.now + LIFETIMES.svid_ms).authority == 2
    world.look(other, LIFETIMES.svid_ms + LIFETIMES.step_ms + LIFETIMES.clock_skew_ms)
    assert world.states() == [AuthorityState.RETIRED, AuthorityState.ACTIVE]
    assert (other.bundle().sequence, len(other.bundle().authorities)) == (3, 1)
    assert world.acts()[2:] == [
        (Act.AUTHORITY_PREPARED, "authority/2"),
        (Act.AUTHORITY_ACTIVATED, "authority/2"),
        (Act.AUTHORITY_RETIRED, "authority/1"),
    ]


def test_replicas_that_look_at_once_take_each_step_once(world):
    replicas = [world.replica()] + [world.replica(world.rig.beside()) for _ in range(3)]
    for later in (
        2 * LIFETIMES.authority_ms // 3,
        LIFETIMES.activation_delay_ms,
        LIFETIMES.svid_ms,
    ):
        world.now += later
        together = threading.Barrier(len(replicas))

        def look(one, together=together) -> None:
            together.wait()
            one.look(lambda: world.now)

        threads = [threading.Thread(target=look, args=(one,)) for one in replicas]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    acts = world.acts()
    assert len(acts) == len(set(acts)) == 5
    assert world.states() == [AuthorityState.RETIRED, AuthorityState.ACTIVE]
    held = [label for label in world.rig.token.labels() if label.startswith("capsign/authority/")]
    # A number that a slower replica took and gave back may be skipped.
    assert held == [row.label for row in world.rig.store.authorities()], (
        "a replica that came second left its key behind"
    )


def test_one_promise_serves_many(world, authority):
    calls, real = [], world.rig.store.promise_authority
    world.rig.store.instead(promise_authority=lambda *a: calls.append(a) or real(*a))
    for _ in range(100):
        authority.issue(APP, SPKI, world.now)
        world.now += LIFETIMES.step_ms // 50
    assert len(calls) <= 3


def test_nothing_leaves_without_its_promise(world, authority):
    for error in (StoreUnavailableError("gone"), CommitUnknownError("gone")):
        with world.rig.store.for_now(
            promise_authority=lambda *_, error=error: (_ for _ in ()).throw(error)
        ):
            with pytest.raises(FailureError) as caught:
                authority.issue(APP, SPKI, world.now)
            assert caught.value.reason == reasons.REASON_STORE_UNAVAILABLE
    assert authority.issue(APP, SPKI, world.now).authority == 1


def test_a_token_that_is_gone_is_an_outage(world, authority):
    world.rig.token.lose()
    with pytest.raises(FailureError) as caught:
        authority.issue(APP, SPKI, world.now)
    assert caught.value.reason == reasons.REASON_TOKEN_UNAVAILABLE
    world.rig.token.restore()
    authority.issue(APP, SPKI, world.now)


@pytest.mark.parametrize(
    "spki",
    [
        b"",
        b"not a key",
        spki_of(ec.generate_private_key(ec.SECP384R1())),
        spki_of(ed25519.Ed25519PrivateKey.generate()),
    ],
    ids=["empty", "garbage", "P-384", "Ed25519"],
)
def test_another_kind_of_key_is_refused(world, authority, spki):
    with pytest.raises(FailureError) as caught:
        authority.issue(APP, spki, world.now)
    assert caught.value.reason == reasons.REASON_CERTIFICATE_REQUEST_REFUSED


def test_an_identity_that_no_entry_can_name_is_refused(world, authority):
    with pytest.raises(FailureError) as caught:
        authority.issue("spiffe://capsign.test/ns/n/sa/" + "a" * 240, SPKI, world.now)
    assert caught.value.reason == reasons.REASON_CERTIFICATE_REQUEST_REFUSED


def authority_keys(token):
    return [label for label in token.labels() if label.startswith("capsign/authority/")]


@pytest.mark.parametrize("method", ["sign", "public_key"])
def test_a_preparation_that_fails_leaves_no_key(world, authority, method):
    world.rig.token.fail(method)
    with pytest.raises(TokenUnavailableError):
        roll.prepare(
            world.rig.store.authorities(), world.rig.token, world.rig.store, world.realm, world.now
        )
    assert authority_keys(world.rig.token) == ["capsign/authority/1"]
    assert world.states() == [AuthorityState.ACTIVE]


def test_a_preparation_that_the_store_refuses_leaves_no_key(world):
    def gone(*_):
        raise StoreUnavailableError("the disk is full")

    world.rig.store.instead(add_authority=gone)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            roll.prepare(
                world.rig.store.authorities(),
                world.rig.token,
                world.rig.store,
                world.realm,
                world.now,
            )
    assert authority_keys(world.rig.token) == ["capsign/authority/1"]


@pytest.mark.parametrize(
    "error", [CommitUnknownError("the connection broke"), RuntimeError("a defect after the commit")]
)
def test_a_preparation_of_unknown_outcome_keeps_its_key(world, authority, error):
    """The row was written, and nobody said so: without its key the authority would be published for
    ever and never sign.
    """
    real = world.rig.store.add_authority

    def lost(*arguments):
        real(*arguments)
        raise error

    with world.rig.store.for_now(add_authority=lost), pytest.raises(type(error)):
        roll.prepare(
            world.rig.store.authorities(),
            world.rig.token,
            world.rig.store,
            world.realm,
            world.now,
        )
    world.look(authority, LIFETIMES.activation_delay_ms)
    assert authority.issue(APP, SPKI, world.now).authority == 2


HOURS = 7 * 3_600_000


def test_a_replica_that_is_hours_ahead_moves_nothing_alone(world, authority):
    """It retired an authority whose certificates were in use, and activated one that nobody had
    heard of: for everybody.
    """
    beside = world.rig.beside()
    ahead = world.replica(beside)
    for store in (world.rig.store, beside.store):
        store.instead(clock_ms=lambda: world.now)
    old = authority.issue(APP, SPKI, world.now)
    ahead.look(lambda: world.now + HOURS)
    assert world.states() == [AuthorityState.ACTIVE], "nor is one prepared before its time"
    roll.prepare(
        world.rig.store.authorities(), world.rig.token, world.rig.store, world.realm, world.now
    )
    ahead.look(lambda: world.now + HOURS)
    assert world.states() == [AuthorityState.ACTIVE, AuthorityState.PREPARED]
    world.look(authority, LIFETIMES.activation_delay_ms)
    ahead.look(lambda: world.now + HOURS)
    assert world.states() == [AuthorityState.ACTIVE, AuthorityState.ACTIVE]
    verify(old, ahead.bundle())
    world.now += LIFETIMES.svid_ms + LIFETIMES.step_ms + LIFETIMES.clock_skew_ms
    ahead.look(lambda: world.now + HOURS)
    assert world.states() == [AuthorityState.RETIRED, AuthorityState.ACTIVE], (
        "when its time has come it may as well do it"
    )


def test_a_store_whose_clock_is_ahead_moves_nothing_alone(world, authority):
    world.rig.store.instead(clock_ms=lambda: world.now + HOURS)
    roll.prepare(
        world.rig.store.authorities(), world.rig.token, world.rig.store, world.realm, world.now
    )
    world.look(authority)
    assert world.states() == [AuthorityState.ACTIVE, AuthorityState.PREPARED]


def test_a_wait_begins_by_the_clock_that_all_share(world, authority):
    """A replica that is minutes behind published a successor, and for all others its wait was over
    at once.
    """
    world.rig.store.instead(clock_ms=lambda: world.now + LIFETIMES.activation_delay_ms)
    world.look(authority, 2 * LIFETIMES.authority_ms // 3)
    assert world.rig.store.authorities()[-1].created_ms == world.now + LIFETIMES.activation_delay_ms


def test_a_deployment_that_was_off_for_years_signs_again(world, authority):
    assert authority.remaining_s(world.now) == LIFETIMES.authority_ms / 1000
    assert authority.remaining_s(world.now + 20 * LIFETIMES.authority_ms) == 0
    world.look(authority, 20 * LIFETIMES.authority_ms)
    assert authority.remaining_s(world.now) == LIFETIMES.authority_ms / 1000
    issued = authority.issue(APP, SPKI, world.now)
    verify(issued, authority.bundle())
    assert issued.not_after_ms == world.now + LIFETIMES.svid_ms
