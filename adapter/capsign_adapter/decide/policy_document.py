"""The policy document as it is written: the shape, and the bounds of each field.
`docs/policy.schema.json` is made from it.

Types and lengths are checked here by msgspec; what the parts mean together is checked in
`policy_load.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from capsign_adapter.decide import durations

NAME = r"^[a-z0-9][a-z0-9._-]*$"
TRUST_DOMAIN = r"^[a-z0-9._-]+$"
SPIFFE_ID = r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$"

WORDING = {
    NAME: "a name: lower-case letters, digits, '.', '_' and '-', starting with a letter or digit",
    TRUST_DOMAIN: "a trust domain: lower-case letters, digits, '.', '_' and '-'",
    SPIFFE_ID: "a SPIFFE ID: spiffe://<trust domain>/<path>",
    durations.PATTERN: "a duration such as 30s, 15m or 1h30m",
}
"""What each pattern means to a person."""

Name = Annotated[str, Meta(pattern=NAME, min_length=1, max_length=64)]
VersionName = Annotated[str, Meta(pattern=NAME, min_length=1, max_length=32)]
SpiffeId = Annotated[str, Meta(pattern=SPIFFE_ID, max_length=255)]
Duration = Annotated[str, Meta(pattern=durations.PATTERN, max_length=32)]
AlgorithmName = Annotated[str, Meta(min_length=1, max_length=32)]
AlgorithmNames = Annotated[tuple[AlgorithmName, ...], Meta(min_length=1, max_length=16)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class TenantPart(_Part, frozen=True, kw_only=True):
    """A tenant: keys, grants and the secrecy of its evidence are its own."""

    name: Name


class KeyPart(_Part, frozen=True, kw_only=True):
    """A key of a tenant."""

    tenant: Name
    name: Name
    kind: Literal["derived", "direct"]
    algorithms: AlgorithmNames


class ProtocolPart(_Part, frozen=True, kw_only=True):
    """A protocol with the roles and versions allowed in it."""

    protocol: Name
    roles: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=16)]
    versions: Annotated[tuple[VersionName, ...], Meta(min_length=1, max_length=16)]


class RatePart(_Part, frozen=True, kw_only=True):
    """Signatures a second, and how many at once; burst is per_second where it is not
    given.
    """

    per_second: Annotated[int, Meta(ge=1, le=1_000_000)]
    burst: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class GrantPart(_Part, frozen=True, kw_only=True):
    """Which workloads may sign what: the whole of their authority."""

    name: Name
    tenant: Name
    key: Name
    workloads: Annotated[tuple[SpiffeId, ...], Meta(min_length=1, max_length=1024)]
    purpose: Name
    algorithms: AlgorithmNames
    protocols: Annotated[tuple[ProtocolPart, ...], Meta(min_length=1, max_length=16)]
    transcript: Literal["forbidden", "allowed", "required"] = "forbidden"
    min_custody: Literal["adapter-memory", "hsm-derived", "hsm-direct"] = "adapter-memory"
    ttl: Duration = "15m"
    rate: RatePart | None = None
    max_uses: Annotated[int, Meta(ge=1, le=2_147_483_647)] | None = None


class RolePart(_Part, frozen=True, kw_only=True):
    """Who has a role."""

    role: Literal["operator", "developer", "responder", "auditor", "approver"]
    identities: Annotated[tuple[SpiffeId, ...], Meta(min_length=1, max_length=256)]


class LimitsPart(_Part, frozen=True, kw_only=True):
    """Limits that hold for everybody. message_max is bytes."""

    intent_retention: Duration = "24h"
    clock_skew: Duration = "30s"
    message_max: Annotated[int, Meta(ge=1, le=65536)] = 65536


class AlgorithmsPart(_Part, frozen=True, kw_only=True):
    """The least security strength of an algorithm, bits."""

    floor_bits: Literal[112, 128, 192] = 128


class TlsPart(_Part, frozen=True, kw_only=True):
    """The weakest TLS that is accepted."""

    min: Literal["1.3"] = "1.3"


class PolicyDocument(_Part, frozen=True, kw_only=True):
    """The one document that says who may sign what."""

    version: Literal[1]
    trust_domain: Annotated[str, Meta(pattern=TRUST_DOMAIN, min_length=1, max_length=255)]
    tenants: Annotated[tuple[TenantPart, ...], Meta(min_length=1, max_length=256)]
    keys: Annotated[tuple[KeyPart, ...], Meta(max_length=4096)] = ()
    grants: Annotated[tuple[GrantPart, ...], Meta(max_length=10_000)] = ()
    roles: Annotated[tuple[RolePart, ...], Meta(max_length=64)] = ()
    limits: LimitsPart = LimitsPart()
    algorithms: AlgorithmsPart = AlgorithmsPart()
    tls: TlsPart = TlsPart()
