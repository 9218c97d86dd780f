"""Replicas, API servers, operators and time, in any order: an API server never meets a leaf that it
does not trust.

Each replica's look is three steps here (read the webhooks, read the Secret, write), and the machine
mixes the steps of all. An API server trusts what was published at some moment of the last LAG_S
seconds, and which moment that is, is its affair.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from capsign_injector.certificate import certificates, rotation, secret_data
from capsign_injector.certificate.rotation import Material, Publish, Step, Store, Terms, View, Wait
from cryptography import x509
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

NAME = "capsign-injector.capsign-system.svc"
LAG_S = 50
"""How late an API server learns what was published."""
SKEW_S = 5
"""How far an API server's clock is off, either way."""
TERMS = Terms(
    (NAME,),
    authority_life_s=4_000,
    leaf_life_s=800,
    propagation_s=LAG_S + 2 * SKEW_S + 1,
    patience_s=60,
)
BEGIN = 1_800_000_000
REPLICAS = st.integers(0, 2)


@dataclass
class Replica:
    held: Material | None = None
    sure_until: int = 0
    published: bool = False
    webhooks: tuple[int, frozenset[bytes]] | None = None
    secret: tuple[int, Step] | None = None


@dataclass
class World:
    now: int = BEGIN
    secret: dict[str, bytes] = field(default_factory=dict)
    secret_version: int = 0
    trusted: frozenset[bytes] = frozenset()
    webhooks_version: int = 0
    rotation: str = ""
    published: list[tuple[int, int, frozenset[bytes]]] = field(default_factory=list)
    """From when to when something of ours was trusted."""


class Rotation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.replicas = [Replica() for _ in range(3)]
        self.rotations = 0
        self.verdicts: dict[tuple[bytes, bytes], bool] = {}

    @initialize()
    def one_replica_is_ready(self) -> None:
        self.settle(0)

    # What replicas do.

    @rule(number=REPLICAS)
    def reads_the_webhooks(self, number: int) -> None:
        replica = self.replicas[number]
        replica.webhooks, replica.secret = (self.world.webhooks_version, self.world.trusted), None

    @precondition(lambda self: any(one.webhooks for one in self.replicas))
    @rule(number=REPLICAS, skew=st.integers(-SKEW_S, SKEW_S))
    def reads_the_secret(self, number: int, skew: int) -> None:
        replica, world = self.replicas[number], self.world
        if replica.webhooks is None:
            return
        said = world.now + skew
        stored = secret_data.decode(world.secret)
        if stored is not None:
            replica.held, replica.sure_until = (
                stored,
                rotation.sure_until(stored, said, TERMS),
            )
            replica.published = (
                certificates.read(stored.authority.certificate).der in replica.webhooks[1]
            )
        elif replica.held is None and any(one.held for one in self.replicas):
            replica.webhooks = None  # it is patient until one of those who serve has looked
            return
        view = View(
            stored, replica.held, replica.webhooks[1], said, world.rotation, said - TERMS.patience_s
        )
        replica.secret = (world.secret_version, rotation.next_step(view, TERMS))

    @precondition(lambda self: any(one.secret for one in self.replicas))
    @rule(number=REPLICAS)
    def writes(self, number: int) -> None:
        replica, world = self.replicas[number], self.world
        if replica.secret is None or replica.webhooks is None:
            return
        version, step = replica.secret
        if isinstance(step, Store) and version == world.secret_version:
            self.note_a_new_beginning(step)
            world.secret, world.secret_version = (
                secret_data.encode(step.material),
                version + 1,
            )
        elif isinstance(step, Publish) and replica.webhooks[0] == world.webhooks_version:
            self.publish(
                frozenset(one.der for one in certificates.read_all(step.bundle)), ours=True
            )
        replica.webhooks = replica.secret = None

    @rule(number=REPLICAS)
    def settle(self, number: int) -> None:
        """An undisturbed look; it comes to an end."""
        for _ in range(16):
            self.reads_the_webhooks(number)
            self.reads_the_secret(number, 0)
            secret = self.replicas[number].secret
            if secret is None:
                return self.settle(
                    next(index for index, one in enumerate(self.replicas) if one.held)
                )
            if isinstance(secret[1], Wait):
                assert secret[1].until > self.world.now
                return None
            self.writes(number)
        raise AssertionError("the replica quarrels with itself")

    @rule(number=REPLICAS)
    def restarts(self, number: int) -> None:
        self.replicas[number] = Replica()

    # What others do.

    @rule(seconds=st.sampled_from([1, 5, 20, 40, 45, LAG_S, TERMS.propagation_s, 300, 2_000]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += seconds

    @rule()
    def an_operator_asks_for_a_rotation(self) -> None:
        self.rotations += 1
        self.world.rotation = f"rotation {self.rotations}"

    @rule()
    def an_operator_wipes_the_webhooks(self) -> None:
        """A rollback of the chart, or a slip. What API servers make of this is not ours; what comes
        after is.
        """
        self.publish(frozenset(), ours=False)

    @precondition(lambda self: not any(one.webhooks for one in self.replicas))
    @rule()
    def an_operator_puts_an_old_bundle_back(self) -> None:
        """It still trusts what is served, and not what will be: the wait begins anew."""
        stored = secret_data.decode(self.world.secret)
        if stored is not None and stored.next is not None:
            self.publish(
                frozenset({certificates.read(stored.authority.certificate).der}), ours=True
            )

    @precondition(lambda self: self.everybody_is_up_to_date())
    @rule()
    def an_operator_empties_the_secret(self) -> None:
        self.world.secret, self.world.secret_version = {}, self.world.secret_version + 1

    # What must hold.

    @invariant()
    def every_api_server_takes_what_ready_replicas_serve(self) -> None:
        world = self.world
        for replica in self.replicas:
            if (
                replica.held is None
                or not replica.published
                or world.now + SKEW_S >= replica.sure_until
            ):
                continue
            for begin, end, trusted in world.published:
                if begin <= world.now and end > world.now - LAG_S:
                    assert any(self.verifies(replica.held.leaf.certificate, one) for one in trusted)

    @invariant()
    def keys_of_retired_authorities_are_gone(self) -> None:
        keys = {name for name in self.world.secret if name.endswith(".key")}
        assert keys <= {"tls.key", "ca.key", "next-ca.key"}
        assert "previous-ca.crt" not in self.world.secret or "next-ca.key" not in keys

    def teardown(self) -> None:
        """From wherever this ended: undisturbed, a replica settles, and long enough after there is
        another authority.
        """
        self.replicas[1:] = []
        self.replicas[0].held = secret_data.decode(self.world.secret) or self.replicas[0].held
        self.settle(0)
        before = self.replicas[0].held
        for passed in (TERMS.authority_life_s * 2 // 3, *[TERMS.propagation_s + 1] * 4):
            self.world.now += passed
            self.settle(0)
        after = self.replicas[0].held
        assert before is not None
        assert after is not None
        assert after.authority != before.authority
        assert self.world.trusted == {one.der for one in certificates.read_all(after.bundle())}

    # Helpers.

    def publish(self, trusted: frozenset[bytes], *, ours: bool) -> None:
        world = self.world
        if world.published and world.published[-1][1] == FOREVER:
            begin, _, last = world.published.pop()
            world.published.append((begin, world.now, last))
        world.trusted, world.webhooks_version = trusted, world.webhooks_version + 1
        if ours:
            world.published.append((world.now, FOREVER, trusted))

    def note_a_new_beginning(self, step: Store) -> None:
        """Nobody had anything to serve with, or all had ended: what API servers knew before is
        worth nothing to anybody.
        """
        stored = secret_data.decode(self.world.secret)
        if step.why == "authority_made" or (
            stored and not certificates.read(stored.authority.certificate).valid(self.world.now)
        ):
            self.world.published = []

    def everybody_is_up_to_date(self) -> bool:
        stored = secret_data.decode(self.world.secret)
        return stored is not None and all(
            one.held in (None, stored) and one.secret is None for one in self.replicas
        )

    def verifies(self, leaf_pem: bytes, authority_der: bytes) -> bool:
        if (leaf_pem, authority_der) not in self.verdicts:
            leaf, authority = (
                x509.load_pem_x509_certificate(leaf_pem),
                x509.load_der_x509_certificate(authority_der),
            )
            try:
                leaf.verify_directly_issued_by(authority)
                verdict = True
            except ValueError:
                verdict = False
            self.verdicts[leaf_pem, authority_der] = verdict
        times = certificates.read(leaf_pem)
        return (
            self.verdicts[leaf_pem, authority_der]
            and times.valid(self.world.now - SKEW_S)
            and times.valid(self.world.now + SKEW_S)
        )


FOREVER = 1 << 60

TestRotation = Rotation.TestCase
TestRotation.settings = settings(
    max_examples=60, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
