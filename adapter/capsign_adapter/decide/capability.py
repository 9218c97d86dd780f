"""What a handle states: one workload may sign with one key, for one purpose, in certain contexts,
with certain algorithms, until it expires.

A capability is minted from a grant of the policy and is carried in a Biscuit token (`biscuits.py`).
It is an upper bound: the agent may narrow it, the policy may have become stricter, and the
strictest holds (`admission.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from capsign_wire.context_rule import ProtocolRule

from capsign_adapter.decide.policy import Grant

SERIAL_LEN = 16
"""Length of a handle's serial, bytes."""

CERT_KEY_HASH_LEN = 32
"""Length of the SHA-256 of a certificate's SubjectPublicKeyInfo, bytes."""


@dataclass(frozen=True, slots=True)
class Capability:
    """One handle. `algorithms` are enum numbers; times are milliseconds since 1970; a rate or count
    of 0 is no limit.

    `cert_key_hash` is SHA-256 of the DER SubjectPublicKeyInfo of the certificate that fetched the
    handle. `transcript` is a TranscriptRule, `min_custody` a CustodyClass. Valid from
    `not_before_ms`, and before `expires_ms`.
    """

    serial: bytes
    workload: str
    cert_key_hash: bytes
    grant: str
    tenant: str
    key: str
    purpose: str
    algorithms: frozenset[int]
    protocols: tuple[ProtocolRule, ...]
    transcript: int
    min_custody: int
    not_before_ms: int
    expires_ms: int
    rate_per_second: int = 0
    burst: int = 0
    max_uses: int = 0

    def __post_init__(self) -> None:
        if len(self.serial) != SERIAL_LEN or len(self.cert_key_hash) != CERT_KEY_HASH_LEN:
            raise ValueError("a serial is 16 bytes and a hash of a certificate's key 32")
        if not self.algorithms or not self.protocols or self.expires_ms <= self.not_before_ms:
            raise ValueError(
                "a capability allows at least one algorithm and one protocol, for some time"
            )


def capability_for(
    grant: Grant, workload: str, cert_key_hash: bytes, serial: bytes, now_ms: int
) -> Capability:
    """The capability that this grant gives to this workload from now on. The caller has checked
    that the grant names it.
    """
    if workload not in grant.workloads:
        raise ValueError("the grant does not name this workload")
    return Capability(
        serial=serial,
        workload=workload,
        cert_key_hash=cert_key_hash,
        grant=grant.name,
        tenant=grant.tenant,
        key=grant.key,
        purpose=grant.purpose,
        algorithms=grant.algorithms,
        protocols=grant.protocols,
        transcript=grant.transcript,
        min_custody=grant.min_custody,
        not_before_ms=now_ms,
        expires_ms=now_ms + grant.ttl_ms,
        rate_per_second=grant.rate_per_second,
        burst=grant.burst,
        max_uses=grant.max_uses,
    )
