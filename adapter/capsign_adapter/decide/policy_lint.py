"""Finds what is legal in a policy and still unwise. A finding never keeps a policy from coming into
force.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from capsign_wire.types.v1 import algorithms_pb2

from capsign_adapter.decide.policy import Grant, Policy, Role

LONG_LIFE_MS = 3_600_000
"""A handle that lives longer than this outlives most incidents."""

LARGE_SKEW_MS = 60_000
"""A clock skew above this hides a broken clock."""

MANY_ALGORITHMS = 4
"""A grant with more algorithms than this is rarely what somebody needs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something unwise: where, what, and what to do."""

    path: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what} {self.advice}"


def lint(policy: Policy) -> list[Finding]:
    """Returns everything unwise in this policy, in the order of the document."""
    grants = (finding for grant in policy.grants for finding in _grant(grant))
    return [*_tenants(policy), *_keys(policy), *grants, *_people(policy), *_floors(policy)]


def _tenants(policy: Policy) -> Iterator[Finding]:
    used = {key.tenant for key in policy.keys}
    for name in policy.tenants:
        if name not in used:
            yield Finding(f"tenant {name}", "It has no key.", "Add one, or take the tenant out.")


def _keys(policy: Policy) -> Iterator[Finding]:
    used = {(grant.tenant, grant.key) for grant in policy.grants}
    for key in policy.keys:
        if (key.tenant, key.name) not in used:
            yield Finding(
                f"key {key.tenant}/{key.name}", "No grant uses it.", "Take it out, or add a grant."
            )
        if algorithms_pb2.ALGORITHM_RS256 in key.algorithms:
            yield Finding(
                f"key {key.tenant}/{key.name}",
                "RS256 is for verifiers that know nothing newer.",
                "Prefer PS256.",
            )


def _grant(grant: Grant) -> Iterator[Finding]:
    path = f"grant {grant.name}"
    if grant.ttl_ms > LONG_LIFE_MS:
        yield Finding(
            path,
            "Its handles live longer than an hour.",
            "Handles renew themselves; 15m is enough.",
        )
    if grant.rate_per_second == 0:
        yield Finding(path, "It has no rate.", "Say what is normal, so that misuse shows.")
    if len(grant.algorithms) > MANY_ALGORITHMS:
        yield Finding(
            path, f"It allows {len(grant.algorithms)} algorithms.", "Name only those in use."
        )


def _people(policy: Policy) -> Iterator[Finding]:
    held = {role: {who for who, roles in policy.roles.items() if role in roles} for role in Role}
    if not held[Role.RESPONDER] | held[Role.OPERATOR]:
        yield Finding("roles", "Nobody can revoke.", "Give somebody the role responder.")
    if not held[Role.AUDITOR]:
        yield Finding("roles", "Nobody can read the evidence.", "Give somebody the role auditor.")
    if not held[Role.APPROVER]:
        yield Finding(
            "roles",
            "Nobody can approve: what weakens comes into force by the adapter's file alone.",
            "Give somebody the role approver.",
        )
    for who, roles in policy.roles.items():
        if {Role.OPERATOR, Role.APPROVER} <= roles:
            yield Finding(
                f"roles of {who}",
                "It both acts and approves.",
                "Give one of the two to somebody else.",
            )
        if Role.AUDITOR in roles and len(roles) > 1:
            yield Finding(
                f"roles of {who}", "It audits what it does.", "Give the audit to somebody else."
            )
        if policy.grants_of(who):
            yield Finding(
                f"roles of {who}", "It is a workload and administers too.", "Use two identities."
            )


def _floors(policy: Policy) -> Iterator[Finding]:
    if policy.floor_bits < 128:
        yield Finding(
            "algorithms.floor_bits",
            "It is below 128 bits.",
            "Raise it unless an old verifier needs less.",
        )
    if policy.limits.clock_skew_ms > LARGE_SKEW_MS:
        yield Finding("limits.clock_skew", "It is above a minute.", "Set the clocks, and lower it.")
