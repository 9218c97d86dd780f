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
PERCENT = r"^(100|[0-9]{1,2}(\.[0-9]{1,4})?)%$"
TIME_OF_DAY = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
SPIFFE_ID = r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$"

WORDING = {
    NAME: "a name: lower-case letters, digits, '.', '_' and '-', starting with a letter or digit",
    TRUST_DOMAIN: "a trust domain: lower-case letters, digits, '.', '_' and '-'",
    SPIFFE_ID: "a SPIFFE ID: spiffe://<trust domain>/<path>",
    PERCENT: "a percentage such as 1% or 0.05%",
    TIME_OF_DAY: "a time of day in UTC, such as 02:30",
    durations.PATTERN: "a duration such as 30s, 15m or 1h30m",
}
"""What each pattern means to a person."""

Name = Annotated[str, Meta(pattern=NAME, min_length=1, max_length=64)]
VersionName = Annotated[str, Meta(pattern=NAME, min_length=1, max_length=32)]
SpiffeId = Annotated[str, Meta(pattern=SPIFFE_ID, max_length=255)]
Duration = Annotated[str, Meta(pattern=durations.PATTERN, max_length=32)]
Percent = Annotated[str, Meta(pattern=PERCENT, max_length=9)]
TimeOfDay = Annotated[str, Meta(pattern=TIME_OF_DAY, max_length=5)]
AlgorithmName = Annotated[str, Meta(min_length=1, max_length=32)]
AlgorithmNames = Annotated[tuple[AlgorithmName, ...], Meta(min_length=1, max_length=16)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class TenantPart(_Part, frozen=True, kw_only=True):
    """A tenant: keys, grants and the secrecy of its evidence are its own."""

    name: Name


class WindowPart(_Part, frozen=True, kw_only=True):
    """A part of each day, UTC; one that ends before it begins goes over midnight."""

    begin: TimeOfDay
    end: TimeOfDay


class RotationPart(_Part, frozen=True, kw_only=True):
    """A rollout to a new version begins this long after the last one was activated, or up to jitter
    later, in the window of a day.
    """

    every: Duration
    jitter: Duration = "0s"
    window: WindowPart | None = None


class LifetimePart(_Part, frozen=True, kw_only=True):
    """How long a version of a key may sign, its cryptoperiod (NIST SP 800-57 part 1, section 5.3),
    and for how long what it protects must withstand attacks from now on, its confidentiality
    horizon. Nothing stops at the end of either: what is older is told as drift.
    """

    cryptoperiod: Duration = "17520h"
    horizon: Duration = "0s"


class KeyPart(_Part, frozen=True, kw_only=True):
    """A key of a tenant."""

    tenant: Name
    name: Name
    kind: Literal["derived", "direct"]
    algorithms: AlgorithmNames
    rotation: RotationPart | None = None
    lifetime: LifetimePart = LifetimePart()


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


class CanaryPart(_Part, frozen=True, kw_only=True):
    """So many percent of the workloads sign with what is new, for at least this long."""

    percent: Annotated[int, Meta(ge=1, le=99)]
    bake: Duration


class TriggersPart(_Part, frozen=True, kw_only=True):
    """What rolls a rollout back, and how many samples it takes to say anything. A p99 of 0s is no
    bound. With verifications optional, too few of them pass.
    """

    error_rate: Percent = "1%"
    verify_failure_rate: Percent = "0.1%"
    p99: Duration = "5s"
    min_samples: Annotated[int, Meta(ge=0, le=1_000_000)] = 100
    min_verifications: Annotated[int, Meta(ge=0, le=1_000_000)] = 20
    verifications: Literal["optional", "required"] = "optional"


_CANARY = (
    CanaryPart(percent=1, bake="10m"),
    CanaryPart(percent=10, bake="10m"),
    CanaryPart(percent=50, bake="10m"),
)


class RolloutsPart(_Part, frozen=True, kw_only=True):
    """How a key moves to another version or algorithm: the time that verifiers have to fetch new
    public keys, whether those who do not keep it waiting, and how long each stage lasts at least. A
    dual_sign of 0s leaves that stage out.
    """

    propagation: Duration = "15m"
    readiness: Literal["shown", "required"] = "shown"
    canary: Annotated[tuple[CanaryPart, ...], Meta(min_length=1, max_length=16)] = _CANARY
    dual_sign: Duration = "30m"
    promote: Duration = "30m"
    retire: Duration = "24h"
    triggers: TriggersPart = TriggersPart()


class ApprovalsPart(_Part, frozen=True, kw_only=True):
    """Acts that need two people: how long they can be approved, and how long the destruction of a
    key waits after its approval.
    """

    expire: Duration = "72h"
    destroy_wait: Duration = "24h"


class ChangesPart(_Part, frozen=True, kw_only=True):
    """How changes of this policy come into force. One that weakens or broadens something always
    waits for an approver; one that does not comes into force at once, if an operator makes it and
    this says so.
    """

    strengthening: Literal["at-once", "approved"] = "at-once"


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
    rollouts: RolloutsPart = RolloutsPart()
    approvals: ApprovalsPart = ApprovalsPart()
    changes: ChangesPart = ChangesPart()
