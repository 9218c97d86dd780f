"""The policy in force, with names resolved, durations in milliseconds and algorithms as numbers.

`policy_load.parse_policy` is the only function that makes one: it parses the YAML document and
refuses what is wrong with it. A policy is immutable; a new one is a new object with a new digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.context_rule import ProtocolRule
from capsign_wire.types.v1 import algorithms_pb2

from capsign_adapter.model.rollouts import RolloutPlan


class KeyKind(Enum):
    """How a key signs."""

    DERIVED = "derived"
    """A 32-byte root secret in the token; every context has its own subkey."""
    DIRECT = "direct"
    """A key pair in the token, which signs there; one algorithm."""

    def custody(self, algorithm: int) -> frozenset[int]:
        """Returns the custody classes in which a key of this kind can have that algorithm; empty:
        it cannot.
        """
        row = ALGORITHMS[algorithm]
        if self is KeyKind.DIRECT:
            return row.custody & {algorithms_pb2.CUSTODY_CLASS_HSM_DIRECT}
        return (
            row.custody - {algorithms_pb2.CUSTODY_CLASS_HSM_DIRECT}
            if row.derivable
            else frozenset()
        )


class Role(Enum):
    """A set of administrative methods that a person or an automaton may call."""

    OPERATOR = "operator"
    DEVELOPER = "developer"
    RESPONDER = "responder"
    AUDITOR = "auditor"
    APPROVER = "approver"


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a key gets a new version by itself, milliseconds; the window is of each day, UTC, and
    equal ends are all of it.
    """

    every_ms: int
    jitter_ms: int
    window_begin_ms: int = 0
    window_end_ms: int = 0


YEAR_MS = 365 * 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a version of a key may sign, and how long what it protects must withstand attacks,
    milliseconds. By default two years and not at all.
    """

    cryptoperiod_ms: int = 2 * YEAR_MS
    horizon_ms: int = 0


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a tenant and the algorithms it serves, as enum numbers."""

    tenant: str
    name: str
    kind: KeyKind
    algorithms: frozenset[int]
    rotation: Rotation | None = None
    lifetime: Lifetime = Lifetime()


@dataclass(frozen=True, slots=True)
class Grant:
    """Who may sign what. `ttl_ms` is the life of a handle; a rate or count of 0 is no limit.

    `transcript` is a TranscriptRule, `min_custody` a CustodyClass, `protocols` is sorted by
    protocol.
    """

    name: str
    tenant: str
    key: str
    workloads: frozenset[str]
    purpose: str
    algorithms: frozenset[int]
    protocols: tuple[ProtocolRule, ...]
    transcript: int
    min_custody: int
    ttl_ms: int
    rate_per_second: int = 0
    burst: int = 0
    max_uses: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that hold for everybody."""

    intent_retention_ms: int
    """How long an intent's result is kept and its id accepted."""
    clock_skew_ms: int
    """By how much the clocks of replicas, nodes and clients may differ."""
    message_max: int
    """Largest message that goes upstream, bytes."""


@dataclass(frozen=True, slots=True)
class Approvals:
    """How long acts that need two people wait, milliseconds."""

    expire_ms: int
    """How long a proposal can be approved."""
    destroy_wait_ms: int
    """Between the approval of a key's destruction and the destruction."""


@dataclass(frozen=True, slots=True)
class TlsFloor:
    """The weakest TLS that is accepted: "1.3"."""

    min: str


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was checked. `digest` is SHA-256 of the document's bytes and stands in every
    record.
    """

    digest: bytes
    document: bytes = field(repr=False, compare=False)
    """The bytes that `digest` is of."""
    trust_domain: str
    tenants: tuple[str, ...]
    keys: tuple[Key, ...]
    grants: tuple[Grant, ...]
    limits: Limits
    tls: TlsFloor
    rollouts: RolloutPlan
    """Stages and triggers of a rollout that begins now."""
    approvals: Approvals
    strengthen_at_once: bool
    """Whether a change by an operator that weakens nothing comes into force at once."""
    floor_bits: int
    """Least security strength of an algorithm, bits (NIST SP 800-57 part 1, table 2)."""
    roles: Mapping[str, frozenset[Role]]
    """Roles by SPIFFE ID."""
    _by_name: Mapping[str, Grant] = field(init=False, repr=False, compare=False)
    _by_workload: Mapping[str, tuple[Grant, ...]] = field(init=False, repr=False, compare=False)
    _by_key: Mapping[tuple[str, str], Key] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_workload: dict[str, list[Grant]] = {}
        for grant in self.grants:
            for workload in grant.workloads:
                by_workload.setdefault(workload, []).append(grant)
        index = {
            workload: tuple(sorted(grants, key=lambda each: each.name))
            for workload, grants in by_workload.items()
        }
        object.__setattr__(
            self, "_by_name", MappingProxyType({grant.name: grant for grant in self.grants})
        )
        object.__setattr__(self, "_by_workload", MappingProxyType(index))
        object.__setattr__(
            self, "_by_key", MappingProxyType({(key.tenant, key.name): key for key in self.keys})
        )

    def grants_of(self, spiffe_id: str) -> tuple[Grant, ...]:
        """Returns every grant that names this workload, sorted by name; none for one that policy
        does not know.
        """
        return self._by_workload.get(spiffe_id, ())

    def tenant_of(self, spiffe_id: str) -> str:
        """Returns the tenant that is charged for what this workload makes the adapter do: that of
        its first grant; empty: nobody's.
        """
        grants = self.grants_of(spiffe_id)
        return grants[0].tenant if grants else ""

    def grant(self, name: str) -> Grant | None:
        """Returns the grant of that name."""
        return self._by_name.get(name)

    def key(self, tenant: str, name: str) -> Key | None:
        """Returns the key of that tenant and name."""
        return self._by_key.get((tenant, name))

    def roles_of(self, spiffe_id: str) -> frozenset[Role]:
        """Returns the roles of this identity; empty for one that policy does not know."""
        return self.roles.get(spiffe_id, frozenset())


PolicyNow = Callable[[], Policy]
"""The policy in force at the moment of the call. Whoever decides something asks once and keeps the
answer to the end of that decision, and no longer: another version may come into force at any time.
"""
