"""Makes a policy from the parts of a document: checks what the parts mean together, then resolves
names and units.

All problems are collected before any is reported, so that a document can be corrected in one go.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from capsign_wire import svid
from capsign_wire.algorithms import BY_NAME, CUSTODY_NAMES
from capsign_wire.context_rule import ProtocolRule
from capsign_wire.types.v1 import signing_pb2

from capsign_adapter.decide import durations, policy_rollouts
from capsign_adapter.decide.policy import (
    YEAR_MS,
    Approvals,
    Grant,
    Key,
    KeyKind,
    Lifetime,
    Limits,
    Policy,
    Role,
    TlsFloor,
)
from capsign_adapter.decide.policy_document import GrantPart, KeyPart, PolicyDocument
from capsign_adapter.decide.policy_shape import PolicyError, Problem, decode, did_you_mean

MIN_TTL_MS, MAX_TTL_MS = 10_000, 24 * 3_600_000
"""Shortest and longest life of a handle."""

MIN_RETENTION_MS, MAX_RETENTION_MS = 60_000, 30 * 24 * 3_600_000
"""Shortest and longest retention of intents."""

MAX_SKEW_MS = 5 * 60_000
"""Largest clock skew that may be forgiven."""

MIN_EXPIRE_MS, MAX_EXPIRE_MS = 60_000, 30 * 24 * 3_600_000
"""Shortest and longest time in which a proposal can be approved."""

MIN_DESTROY_WAIT_MS, MAX_DESTROY_WAIT_MS = 1_000, 90 * 24 * 3_600_000
"""Shortest and longest time between the approval of a key's destruction and the destruction."""

MAX_CRYPTOPERIOD_MS = 10 * YEAR_MS
"""Longest time that a version of a key may sign."""

MAX_HORIZON_MS = 100 * YEAR_MS
"""Furthest confidentiality horizon."""

MAX_GRANTS_OF_WORKLOAD = 256
"""Most grants of one workload: as many handles as one answer carries."""

MAX_CONTEXT_COST = 1536
"""Most bytes that the context rule of a grant may take in a token; see `_context_cost`."""

CUSTODY_BY_NAME = {name: number for number, name in CUSTODY_NAMES.items()}

TRANSCRIPTS = {
    "forbidden": signing_pb2.TRANSCRIPT_RULE_FORBIDDEN,
    "allowed": signing_pb2.TRANSCRIPT_RULE_ALLOWED,
    "required": signing_pb2.TRANSCRIPT_RULE_REQUIRED,
}


def parse_policy(data: bytes) -> Policy:
    """Returns the policy of this document. Raises PolicyError, which names every problem, its path
    and its remedy.
    """
    return _Checker(decode(data)).policy(data)


class _Checker:
    """Checks one document. Problems are collected in `found`; nothing is resolved until there are
    none.
    """

    def __init__(self, document: PolicyDocument) -> None:
        self._document = document
        self._tenants = frozenset(part.name for part in document.tenants)
        self._keys = {(part.tenant, part.name): part for part in document.keys}
        self._prefix = f"spiffe://{document.trust_domain}/"
        self.found: list[Problem] = []

    def policy(self, data: bytes) -> Policy:
        document = self._document
        self._no_duplicates("tenants", [part.name for part in document.tenants])
        self._no_duplicates("keys", [f"{part.tenant}/{part.name}" for part in document.keys])
        self._no_duplicates("grants", [part.name for part in document.grants])
        for index, key in enumerate(document.keys):
            self._check_key(f"keys[{index}]", key)
        for index, grant in enumerate(document.grants):
            self._check_grant(f"grants[{index}]", grant)
        for index, role in enumerate(document.roles):
            self._check_identities(f"roles[{index}].identities", role.identities)
        self.found += policy_rollouts.problems(document)
        self._check_workload_counts()
        limits, approvals = self._limits(), self._approvals()
        if self.found:
            raise PolicyError(self.found)
        roles: dict[str, frozenset[Role]] = {}
        for part in document.roles:
            for identity in part.identities:
                roles[identity] = roles.get(identity, frozenset()) | {Role(part.role)}
        return Policy(
            digest=hashlib.sha256(data).digest(),
            document=data,
            trust_domain=document.trust_domain,
            tenants=tuple(sorted(self._tenants)),
            keys=tuple(
                Key(
                    part.tenant,
                    part.name,
                    KeyKind(part.kind),
                    _numbers(part.algorithms),
                    policy_rollouts.rotation_of(part.rotation),
                    _lifetime(part),
                )
                for part in document.keys
            ),
            grants=tuple(_resolve(part) for part in document.grants),
            limits=limits,
            tls=TlsFloor(document.tls.min),
            rollouts=policy_rollouts.plan_of(document.rollouts),
            approvals=approvals,
            strengthen_at_once=document.changes.strengthening == "at-once",
            floor_bits=document.algorithms.floor_bits,
            roles=roles,
        )

    def _say(self, path: str, what: str, fix: str) -> None:
        self.found.append(Problem(path, what, fix))

    def _no_duplicates(self, path: str, names: Sequence[str]) -> None:
        for name, count in Counter(names).items():
            if count > 1:
                self._say(
                    path, f"The name {name!r} is used {count} times.", "Give each its own name."
                )

    def _check_tenant(self, path: str, tenant: str) -> bool:
        if tenant not in self._tenants:
            self._say(
                f"{path}.tenant",
                f"There is no tenant {tenant!r}.",
                did_you_mean(tenant, self._tenants),
            )
        return tenant in self._tenants

    def _check_key(self, path: str, key: KeyPart) -> None:
        self._check_tenant(path, key.tenant)
        kind = KeyKind(key.kind)
        known = self._check_algorithms(f"{path}.algorithms", key.algorithms)
        if kind is KeyKind.DIRECT and len(set(key.algorithms)) > 1:
            self._say(
                f"{path}.algorithms",
                "A direct key is one key pair and serves one algorithm.",
                "Make one key for each algorithm, or use kind: derived.",
            )
        life = key.lifetime
        most = MAX_CRYPTOPERIOD_MS
        self._duration(f"{path}.lifetime.cryptoperiod", life.cryptoperiod, 60_000, most)
        self._duration(f"{path}.lifetime.horizon", life.horizon, 0, MAX_HORIZON_MS)
        for name in known:
            if not kind.custody(BY_NAME[name].number):
                other = KeyKind.DERIVED if kind is KeyKind.DIRECT else KeyKind.DIRECT
                what = f"{name} cannot be had from a {kind.value} key."
                self._say(
                    f"{path}.algorithms", what, f"Make a key with kind: {other.value} for it."
                )

    def _check_algorithms(self, path: str, names: tuple[str, ...]) -> list[str]:
        """Returns the algorithms that are known and strong enough; of others it notes why not."""
        good = []
        floor = self._document.algorithms.floor_bits
        self._no_duplicates(path, names)
        for name in dict.fromkeys(names):
            row = BY_NAME.get(name)
            if row is None:
                self._say(path, f"There is no algorithm {name!r}.", did_you_mean(name, BY_NAME))
            elif row.strength_bits < floor:
                what = (
                    f"{name} has {row.strength_bits} bits of strength, below the floor of {floor}."
                )
                self._say(path, what, "Use a stronger algorithm, or lower algorithms.floor_bits.")
            else:
                good.append(name)
        return good

    def _check_grant(self, path: str, grant: GrantPart) -> None:
        known = self._check_algorithms(f"{path}.algorithms", grant.algorithms)
        self._check_identities(f"{path}.workloads", grant.workloads)
        self._check_protocols(f"{path}.protocols", grant)
        self._duration(f"{path}.ttl", grant.ttl, MIN_TTL_MS, MAX_TTL_MS)
        if not self._check_tenant(path, grant.tenant):
            return
        key = self._keys.get((grant.tenant, grant.key))
        if key is None:
            names = [name for tenant, name in self._keys if tenant == grant.tenant]
            fix = did_you_mean(grant.key, names) or "Add it under keys."
            self._say(f"{path}.key", f"Tenant {grant.tenant!r} has no key {grant.key!r}.", fix)
            return
        for name in known:
            self._check_served(path, grant, key, name)

    def _check_served(self, path: str, grant: GrantPart, key: KeyPart, name: str) -> None:
        if name not in key.algorithms:
            what = f"The key {key.tenant}/{key.name} does not serve {name}."
            self._say(
                f"{path}.algorithms",
                what,
                f"Take it out, or add it to the key, which serves: {', '.join(key.algorithms)}.",
            )
            return
        offered = KeyKind(key.kind).custody(BY_NAME[name].number)
        if offered and max(offered) < CUSTODY_BY_NAME[grant.min_custody]:
            what = (
                f"{name} from a {key.kind} key can have {CUSTODY_NAMES[max(offered)]} at "
                f"best, below {grant.min_custody}."
            )
            self._say(
                f"{path}.min_custody",
                what,
                "Lower it, or use a direct key and an algorithm that tokens have.",
            )

    def _check_protocols(self, path: str, grant: GrantPart) -> None:
        self._no_duplicates(path, [rule.protocol for rule in grant.protocols])
        for index, rule in enumerate(grant.protocols):
            self._no_duplicates(f"{path}[{index}].roles", rule.roles)
            self._no_duplicates(f"{path}[{index}].versions", rule.versions)
        cost = _context_cost(grant)
        if cost > MAX_CONTEXT_COST:
            what = f"The rule takes {cost} bytes of a handle; at most {MAX_CONTEXT_COST} fit."
            self._say(path, what, "Split the grant, one for each protocol.")

    def _check_identities(self, path: str, identities: tuple[str, ...]) -> None:
        self._no_duplicates(path, identities)
        for index, identity in enumerate(identities):
            if not identity.startswith(self._prefix):
                what = f"{identity!r} is not in the trust domain {self._document.trust_domain!r}."
                self._say(f"{path}[{index}]", what, f"It must start with {self._prefix!r}.")
            elif not svid.SPIFFE_ID.fullmatch(identity):
                what = "A SPIFFE ID has no '.' or '..' in its path."
                self._say(f"{path}[{index}]", what, "Write the path out.")

    def _check_workload_counts(self) -> None:
        counts = Counter(
            workload for grant in self._document.grants for workload in set(grant.workloads)
        )
        for workload, count in counts.items():
            if count > MAX_GRANTS_OF_WORKLOAD:
                what = (
                    f"{workload!r} has {count} grants; at most {MAX_GRANTS_OF_WORKLOAD} are "
                    f"handed out."
                )
                self._say("grants", what, "Join grants, or split the workload.")

    def _limits(self) -> Limits:
        part = self._document.limits
        return Limits(
            intent_retention_ms=self._duration(
                "limits.intent_retention", part.intent_retention, MIN_RETENTION_MS, MAX_RETENTION_MS
            ),
            clock_skew_ms=self._duration("limits.clock_skew", part.clock_skew, 0, MAX_SKEW_MS),
            message_max=part.message_max,
        )

    def _approvals(self) -> Approvals:
        part = self._document.approvals
        return Approvals(
            expire_ms=self._duration("approvals.expire", part.expire, MIN_EXPIRE_MS, MAX_EXPIRE_MS),
            destroy_wait_ms=self._duration(
                "approvals.destroy_wait",
                part.destroy_wait,
                MIN_DESTROY_WAIT_MS,
                MAX_DESTROY_WAIT_MS,
            ),
        )

    def _duration(self, path: str, text: str, least: int, most: int) -> int:
        millis = durations.to_millis(text)
        if not least <= millis <= most:
            what = f"{text} is out of range."
            self._say(path, what, f"Use {durations.to_text(least)} to {durations.to_text(most)}.")
        return millis


def _numbers(names: Iterable[str]) -> frozenset[int]:
    return frozenset(BY_NAME[name].number for name in names)


def _lifetime(part: KeyPart) -> Lifetime:
    life = part.lifetime
    return Lifetime(durations.to_millis(life.cryptoperiod), durations.to_millis(life.horizon))


def _context_cost(grant: GrantPart) -> int:
    """Returns the most bytes that a rule takes in a token: 32 for each fact, and each distinct name
    once with 2 bytes around it.
    """
    facts = sum(len(rule.roles) + len(rule.versions) for rule in grant.protocols)
    names = {
        name for rule in grant.protocols for name in (rule.protocol, *rule.roles, *rule.versions)
    }
    return 32 * facts + sum(len(name) + 2 for name in names)


def _resolve(part: GrantPart) -> Grant:
    rules = (
        ProtocolRule(rule.protocol, tuple(sorted(rule.roles)), tuple(sorted(rule.versions)))
        for rule in part.protocols
    )
    rate = part.rate
    return Grant(
        name=part.name,
        tenant=part.tenant,
        key=part.key,
        workloads=frozenset(part.workloads),
        purpose=part.purpose,
        algorithms=_numbers(part.algorithms),
        protocols=tuple(sorted(rules, key=lambda rule: rule.protocol)),
        transcript=TRANSCRIPTS[part.transcript],
        min_custody=CUSTODY_BY_NAME[part.min_custody],
        ttl_ms=durations.to_millis(part.ttl),
        rate_per_second=rate.per_second if rate else 0,
        burst=(rate.burst or rate.per_second) if rate else 0,
        max_uses=part.max_uses or 0,
    )
