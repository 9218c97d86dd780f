"""A model of authority, written apart from the code: small worlds, and in each the set of what may
be done, by brute force.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from capsign_adapter.decide.biscuits import Mint, Verified, Verifier
from capsign_adapter.decide.capability import Capability, capability_for
from capsign_adapter.decide.policy import (
    Approvals,
    Grant,
    Key,
    KeyKind,
    Limits,
    Policy,
    TlsFloor,
)
from capsign_adapter.decide.policy_document import RolloutsPart
from capsign_adapter.decide.policy_rollouts import plan_of
from capsign_adapter.decide.revoked import RevocationIndex
from capsign_adapter.model.control import Revocation
from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.context_rule import ProtocolRule
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import signing_pb2
from hypothesis import strategies as st
from support.handles import KEY_HASH, NOW, ORDERS, append, date, suffix

MINT = Mint(bytes(32))
VERIFIER = Verifier(MINT.public_key)

ALGORITHM_NUMBERS = (1, 2, 6, 7)
PROTOCOLS, ROLES, VERSIONS = ("jwt", "tls"), ("client", "server"), ("1", "2")
TRANSCRIPTS = (b"", bytes(32))
LATER = NOW + 60_000
"""When worlds are asked: a minute after the handle was minted."""

UNIVERSE = tuple(product(ALGORITHM_NUMBERS, PROTOCOLS, ROLES, VERSIONS, TRANSCRIPTS))
"""Everything that could be asked for with every value named."""


@dataclass(frozen=True)
class Block:
    """One narrowing block: what it leaves of each dimension; None leaves all. `end` is milliseconds
    or None.
    """

    algorithms: frozenset[int] | None
    protocols: frozenset[str] | None
    roles: frozenset[str] | None
    versions: frozenset[str] | None
    end: int | None

    def allows(self, algorithm, protocol, role, version) -> bool:
        kept = zip(
            (self.algorithms, self.protocols, self.roles, self.versions),
            (algorithm, protocol, role, version),
            strict=True,
        )
        return all(allowed is None or value in allowed for allowed, value in kept) and (
            self.end is None or self.end > LATER
        )

    def statements(self) -> tuple[str, dict]:
        parts, values = [], {}
        for name, allowed in (
            (
                "algorithm",
                self.algorithms and {ALGORITHMS[number].name for number in self.algorithms},
            ),
            ("protocol", self.protocols),
            ("role", self.roles),
            ("version", self.versions),
        ):
            if allowed:
                parts.append(f"check if {name}($x), {{{name}s}}.contains($x)")
                values[f"{name}s"] = sorted(allowed)
        if self.end is not None:
            parts.append("check if time($t), $t < {end}")
            values["end"] = date(self.end)
        return "; ".join(parts), values


@dataclass(frozen=True)
class World:
    """A handle as minted, what the policy says by now, what was revoked, what the agent took
    away.
    """

    minted: Capability
    policy: Policy
    revoked: RevocationIndex
    blocks: tuple[Block, ...]

    def handle(self) -> Verified:
        token = MINT.mint(self.minted)
        for block in self.blocks:
            statements, values = block.statements()
            if statements:
                token = append(MINT, token, statements, **values)
        return VERIFIER.read(token)

    def may(self, algorithm, protocol, role, version, transcript) -> bool:
        """The truth, spelled out one authority after the other."""
        now = self.policy.grant(self.minted.grant)
        rows = [] if now is None else [self.minted, now]
        return (
            now is not None
            and ORDERS in now.workloads
            and (now.tenant, now.key, now.purpose)
            == (self.minted.tenant, self.minted.key, self.minted.purpose)
            and not self.revoked.epoch
            and min(self.minted.expires_ms, self.minted.not_before_ms + now.ttl_ms) > LATER
            and all(algorithm in each.algorithms for each in rows)
            and algorithm in self.policy.key(now.tenant, now.key).algorithms
            and ALGORITHMS[algorithm].strength_bits >= self.policy.floor_bits
            and all(_in_rule(each.protocols, protocol, role, version) for each in rows)
            and all(_transcript(each.transcript, transcript) for each in rows)
            and all(block.allows(algorithm, protocol, role, version) for block in self.blocks)
        )


def _in_rule(rules, protocol, role, version) -> bool:
    return any(
        rule.protocol == protocol and role in rule.roles and version in rule.versions
        for rule in rules
    )


def _transcript(rule, transcript) -> bool:
    if transcript:
        return rule in {signing_pb2.TRANSCRIPT_RULE_ALLOWED, signing_pb2.TRANSCRIPT_RULE_REQUIRED}
    return rule != signing_pb2.TRANSCRIPT_RULE_REQUIRED


def admitted(admit, world: World) -> set:
    """What `admit` lets through of the universe."""
    handle, through = world.handle(), set()
    for algorithm, protocol, role, version, transcript in UNIVERSE:
        try:
            found = admit(
                handle,
                world.policy,
                world.revoked,
                algorithm,
                suffix(protocol, role, version, transcript),
                LATER,
                30_000,
            )
        except FailureError:
            continue
        assert (found.protocol, found.role, found.protocol_version, found.transcript) == (
            protocol,
            role,
            version,
            transcript,
        )
        through.add((algorithm, protocol, role, version, transcript))
    return through


def _some(values):
    return st.sets(st.sampled_from(values), min_size=1).map(lambda kept: tuple(sorted(kept)))


rules = st.lists(
    st.builds(ProtocolRule, st.sampled_from(PROTOCOLS), _some(ROLES), _some(VERSIONS)),
    min_size=1,
    max_size=2,
    unique_by=lambda rule: rule.protocol,
).map(lambda made: tuple(sorted(made, key=lambda rule: rule.protocol)))

grants = st.builds(
    Grant,
    name=st.just("g"),
    tenant=st.just("t"),
    key=st.just("k"),
    workloads=st.just(frozenset({ORDERS})),
    purpose=st.just("p"),
    algorithms=_some(ALGORITHM_NUMBERS).map(frozenset),
    protocols=rules,
    transcript=st.sampled_from([1, 2, 3]),
    min_custody=st.just(1),
    ttl_ms=st.just(900_000),
)


def _left(values):
    return st.none() | st.none() | st.sets(st.sampled_from(values), min_size=1).map(frozenset)


blocks = st.builds(
    Block,
    _left(ALGORITHM_NUMBERS),
    _left(PROTOCOLS),
    _left(ROLES),
    _left(VERSIONS),
    st.sampled_from([*[None] * 8, LATER + 1000, LATER]),
)

_CHANGES = [
    *[{}] * 20,
    {"purpose": "q"},
    {"key": "k2"},
    {"workloads": frozenset({"spiffe://capsign.test/x"})},
    {"ttl_ms": 60_000},
    {"name": "h"},
]


@st.composite
def worlds(draw) -> World:
    """Often the policy is as it was when the handle was minted; sometimes it has moved on in one
    way or several.
    """
    before = draw(grants)
    after = draw(st.just(before) | st.just(before) | grants)
    after = replace(after, **draw(st.sampled_from(_CHANGES)))
    served = draw(
        st.just(ALGORITHM_NUMBERS) | st.just(ALGORITHM_NUMBERS) | _some(ALGORITHM_NUMBERS)
    )
    keys = tuple(Key("t", name, KeyKind.DERIVED, frozenset(served)) for name in ("k", "k2"))
    policy = Policy(
        digest=bytes(32),
        document=b"",
        trust_domain="capsign.test",
        tenants=("t",),
        keys=keys,
        grants=(after,),
        limits=Limits(86_400_000, 30_000, 65536),
        tls=TlsFloor("1.3"),
        rollouts=plan_of(RolloutsPart()),
        approvals=Approvals(259_200_000, 86_400_000),
        strengthen_at_once=True,
        floor_bits=draw(st.sampled_from([112, 128, 128, 128, 128, 192])),
        roles={},
    )
    withdrawn = draw(st.sampled_from([*[None] * 5, (admin_pb2.REVOCATION_KIND_TENANT, "t")]))
    revoked = (
        RevocationIndex(1, [Revocation(1, *withdrawn, at_ms=0)])
        if withdrawn
        else RevocationIndex(0)
    )
    minted = capability_for(before, ORDERS, KEY_HASH, bytes(16), NOW)
    return World(minted, policy, revoked, tuple(draw(st.lists(blocks, max_size=2))))
