"""Decides whether a handle may sign in a context with an algorithm now. Pure: everything that it
depends on is an argument.

Four sources limit a handle, and the strictest holds: revocations, the handle itself, the policy in
force, and what the agent narrowed. The caller chooses only what all of them leave open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from capsign_wire.algorithms import ALGORITHMS, CUSTODY_NAMES
from capsign_wire.context_rule import ProtocolRule, check_transcript, choose
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign_adapter.decide.capability import Capability
from capsign_adapter.decide.policy import Grant, Policy
from capsign_adapter.decide.revoked import RevocationIndex, revoked_failure
from capsign_adapter.model.lifecycle import HandleState, handle_state


@dataclass(frozen=True, slots=True)
class Operation:
    """A use of a handle with every value determined, as the handle's narrowing blocks see it.
    `algorithm` is the table's name.
    """

    algorithm: str
    protocol: str
    role: str
    protocol_version: str
    transcript: bool


class Handle(Protocol):
    """A handle whose token was verified for the peer that presents it; see `biscuits.Verified`."""

    @property
    def capability(self) -> Capability:
        """What the adapter minted."""

    def require(self, operation: Operation, now_ms: int) -> None:
        """Raise FailureError if a narrowing block of the token forbids this."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """An allowed use, with the context's values determined. `transcript` is empty or 32 bytes.

    The limits are the stricter of handle and policy: `min_custody` a CustodyClass, the others 0 for
    no limit.
    """

    protocol: str
    role: str
    protocol_version: str
    transcript: bytes
    min_custody: int
    rate_per_second: int
    burst: int
    max_uses: int
    expires_ms: int
    """When it is no longer allowed, even if nothing else changes: the handle's expiry, or earlier
    by the policy.
    """


def admit(
    handle: Handle,
    policy: Policy,
    revoked: RevocationIndex,
    algorithm: int,
    suffix: signing_pb2.ContextSuffix,
    now_ms: int,
    skew_ms: int,
) -> Admitted:
    """Decide. Raises FailureError HANDLE_REVOKED, HANDLE_EXPIRED, PURPOSE_-, ALGORITHM_- or
    CONTEXT_NOT_ALLOWED.

    `now_ms` is the adapter's clock. `skew_ms` allows a handle that was minted by a replica whose
    clock is ahead; it never prolongs a handle.
    """
    capability = handle.capability
    grant = in_force(capability, policy, revoked, now_ms, skew_ms)
    _algorithm_allowed(capability, grant, policy, algorithm)
    protocol, role, version = choose(_common(capability.protocols, grant.protocols), suffix)
    check_transcript({capability.transcript, grant.transcript}, suffix.transcript)
    operation = Operation(
        ALGORITHMS[algorithm].name, protocol, role, version, bool(suffix.transcript)
    )
    handle.require(operation, now_ms)
    return Admitted(
        protocol=protocol,
        role=role,
        protocol_version=version,
        transcript=suffix.transcript,
        min_custody=max(capability.min_custody, grant.min_custody),
        rate_per_second=_stricter(capability.rate_per_second, grant.rate_per_second),
        burst=_stricter(capability.burst, grant.burst),
        max_uses=_stricter(capability.max_uses, grant.max_uses),
        expires_ms=min(capability.expires_ms, capability.not_before_ms + grant.ttl_ms),
    )


def in_force(
    capability: Capability, policy: Policy, revoked: RevocationIndex, now_ms: int, skew_ms: int
) -> Grant:
    """Returns the grant of this handle, if the handle may be used for anything now.

    Raises FailureError HANDLE_REVOKED, HANDLE_EXPIRED or PURPOSE_NOT_ALLOWED.
    """
    found = revoked.of_capability(capability)
    state = handle_state(expired=now_ms >= capability.expires_ms, revoked=found is not None)
    if found is not None and state is HandleState.REVOKED:
        raise revoked_failure(found)
    grant = _grant_in_force(capability, policy)
    if state is HandleState.EXPIRED:
        raise _expired(capability, now_ms)
    _within_life(capability, grant, now_ms, skew_ms)
    return grant


def check_life(capability: Capability, now_ms: int, skew_ms: int) -> None:
    """Raise FailureError HANDLE_EXPIRED if the handle is not valid at `now_ms` by the adapter's
    clock.
    """
    if now_ms >= capability.expires_ms:
        raise _expired(capability, now_ms)
    if now_ms + skew_ms < capability.not_before_ms:
        raise FailureError(
            failures_pb2.REASON_HANDLE_EXPIRED,
            "The handle is not valid yet by this adapter's clock.",
        )


def _expired(capability: Capability, now_ms: int) -> FailureError:
    late = (now_ms - capability.expires_ms) // 1000
    return FailureError(
        failures_pb2.REASON_HANDLE_EXPIRED,
        f"The handle expired {late} s ago by the adapter's clock.",
    )


def custody_ok(minimum: int, offered: int) -> None:
    """Raise FailureError CUSTODY_TOO_WEAK if the key would sign in a weaker custody class than the
    grant demands.
    """
    if offered < minimum or offered not in CUSTODY_NAMES:
        have, want = CUSTODY_NAMES.get(offered, "none"), CUSTODY_NAMES.get(minimum, "none")
        raise FailureError(
            failures_pb2.REASON_CUSTODY_TOO_WEAK,
            f"The key would sign as {have}; the grant demands {want} or stronger.",
        )


def _grant_in_force(capability: Capability, policy: Policy) -> Grant:
    grant = policy.grant(capability.grant)
    if grant is None or capability.workload not in grant.workloads:
        raise FailureError(
            failures_pb2.REASON_HANDLE_REVOKED,
            "The policy no longer gives this grant to this workload.",
        )
    if (grant.tenant, grant.key) != (capability.tenant, capability.key):
        raise FailureError(
            failures_pb2.REASON_HANDLE_REVOKED, "The grant names another key by now."
        )
    if grant.purpose != capability.purpose:
        raise FailureError(
            failures_pb2.REASON_PURPOSE_NOT_ALLOWED, "The grant is for another purpose by now."
        )
    return grant


def _within_life(capability: Capability, grant: Grant, now_ms: int, skew_ms: int) -> None:
    check_life(capability, now_ms, skew_ms)
    if now_ms >= capability.not_before_ms + grant.ttl_ms:
        raise FailureError(
            failures_pb2.REASON_HANDLE_EXPIRED,
            "The policy gives handles of this grant a shorter life by now.",
        )


def _algorithm_allowed(
    capability: Capability, grant: Grant, policy: Policy, algorithm: int
) -> None:
    row = ALGORITHMS.get(algorithm)
    if row is None or algorithm not in capability.algorithms:
        name = row.name if row else "This algorithm"
        raise _algorithm(f"{name} is not one of the handle's: {_names(capability.algorithms)}.")
    key = policy.key(grant.tenant, grant.key)
    if algorithm not in grant.algorithms or key is None or algorithm not in key.algorithms:
        raise _algorithm(f"The policy no longer allows {row.name} here.")
    if row.strength_bits < policy.floor_bits:
        raise _algorithm(
            f"{row.name} has {row.strength_bits} bits of strength; the policy's floor is "
            f"{policy.floor_bits}."
        )


def _algorithm(detail: str) -> FailureError:
    return FailureError(failures_pb2.REASON_ALGORITHM_NOT_ALLOWED, detail, field="algorithm")


def _names(algorithms: frozenset[int]) -> str:
    return ", ".join(
        sorted(ALGORITHMS[number].name for number in algorithms if number in ALGORITHMS)
    )


def _common(
    minted: tuple[ProtocolRule, ...], now: tuple[ProtocolRule, ...]
) -> tuple[ProtocolRule, ...]:
    """Returns what both rules allow. They are equal unless the policy changed since the handle was
    minted.
    """
    if minted == now:
        return minted
    current = {rule.protocol: rule for rule in now}
    common = []
    for rule in minted:
        other = current.get(rule.protocol)
        if other is not None:
            roles = tuple(role for role in rule.roles if role in other.roles)
            versions = tuple(version for version in rule.versions if version in other.versions)
            if roles and versions:
                common.append(ProtocolRule(rule.protocol, roles, versions))
    return tuple(common)


def _stricter(one: int, other: int) -> int:
    """Returns the smaller of two limits, where 0 is no limit."""
    return min(one or other, other or one)
