"""A capability as the facts and checks of a Biscuit's authority block, and back.

One fact states one thing, so that `biscuit inspect` shows a responder what a handle allows.
docs/formats.md lists them.
"""

from __future__ import annotations

from typing import Any

from biscuit_auth import Authorizer, Fact, Rule
from capsign_wire.algorithms import ALGORITHMS, BY_NAME
from capsign_wire.context_rule import ProtocolRule

from capsign_adapter.decide.capability import Capability

FORMAT = 1
"""Version of the facts in the authority block."""

CHECKS = """
check if workload($workload), cert_key($hash), holder($workload, $hash);
check if now_ms($now), life($start, $end), $now < $end;
check if algorithm($algorithm), may_use($algorithm);
check if protocol($protocol), role($role), version($version),
    may_play($protocol, $role), may_speak($protocol, $version);
"""
"""What every use must meet, whatever is appended: its holder, its life, its algorithms, its
contexts.
"""

_CAPABILITY = Rule(
    "capability($serial, $grant, $tenant, $key, $purpose, $workload, $hash, $start, $end, "
    "$custody, $transcript, $rate, $burst, $uses) <- "
    "handle(1, $serial, $grant, $tenant, $key, $purpose), holder($workload, $hash), "
    "life($start, $end), "
    "limits($custody, $transcript, $rate, $burst, $uses)"
)
_ALGORITHMS = Rule("found($algorithm) <- may_use($algorithm)")
_ROLES = Rule("found($protocol, $role) <- may_play($protocol, $role)")
_VERSIONS = Rule("found($protocol, $version) <- may_speak($protocol, $version)")


def facts_of(capability: Capability) -> list[Fact]:
    """The facts of the authority block."""
    facts = [
        Fact(
            "handle({format}, {serial}, {grant}, {tenant}, {key}, {purpose})",
            {
                "format": FORMAT,
                "serial": capability.serial,
                "grant": capability.grant,
                "tenant": capability.tenant,
                "key": capability.key,
                "purpose": capability.purpose,
            },
        ),
        Fact(
            "holder({workload}, {hash})",
            {"workload": capability.workload, "hash": capability.cert_key_hash},
        ),
        Fact(
            "life({start}, {end})",
            {"start": capability.not_before_ms, "end": capability.expires_ms},
        ),
        Fact(
            "limits({custody}, {transcript}, {rate}, {burst}, {uses})",
            {
                "custody": capability.min_custody,
                "transcript": capability.transcript,
                "rate": capability.rate_per_second,
                "burst": capability.burst,
                "uses": capability.max_uses,
            },
        ),
    ]
    names = sorted(ALGORITHMS[number].name for number in capability.algorithms)
    facts += [Fact("may_use({name})", {"name": name}) for name in names]
    for rule in capability.protocols:
        facts += [
            Fact("may_play({protocol}, {role})", {"protocol": rule.protocol, "role": role})
            for role in rule.roles
        ]
        facts += [
            Fact("may_speak({protocol}, {version})", {"protocol": rule.protocol, "version": each})
            for each in rule.versions
        ]
    return facts


def capability_in(authorizer: Authorizer) -> Capability:
    """The capability in the authority block. Raises ValueError or KeyError if it is not one of this
    format.

    A query sees the facts of the authority block only, whatever later blocks assert.
    """
    (found,) = _terms(authorizer, _CAPABILITY)
    (
        serial,
        grant,
        tenant,
        key,
        purpose,
        workload,
        key_hash,
        start,
        end,
        custody,
        transcript,
        rate,
        burst,
        uses,
    ) = found
    roles: dict[str, set[str]] = {}
    for protocol, role in _terms(authorizer, _ROLES):
        roles.setdefault(protocol, set()).add(role)
    versions: dict[str, set[str]] = {}
    for protocol, version in _terms(authorizer, _VERSIONS):
        versions.setdefault(protocol, set()).add(version)
    return Capability(
        serial=serial,
        workload=workload,
        cert_key_hash=key_hash,
        grant=grant,
        tenant=tenant,
        key=key,
        purpose=purpose,
        # A name this version does not know cannot be used; leaving it out can only forbid.
        algorithms=frozenset(
            BY_NAME[name].number for (name,) in _terms(authorizer, _ALGORITHMS) if name in BY_NAME
        ),
        protocols=tuple(
            ProtocolRule(name, tuple(sorted(roles[name])), tuple(sorted(versions[name])))
            for name in sorted(roles)
        ),
        transcript=transcript,
        min_custody=custody,
        not_before_ms=start,
        expires_ms=end,
        rate_per_second=rate,
        burst=burst,
        max_uses=uses,
    )


def _terms(authorizer: Authorizer, rule: Rule) -> list[list[Any]]:
    return [fact.terms for fact in authorizer.query(rule)]
