"""The public keys of a grant's context as a JWK Set (RFC 7517), for whoever verifies.

A version that is published and does not sign yet is in it under the epoch that is reserved for it:
verifiers know a key before the first signature under it comes.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlencode

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.context_rule import check_transcript, choose
from capsign_wire.failures import FailureError
from capsign_wire.key_states import SIGNS, VERIFIES
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign_adapter.algorithms.kid import public_members
from capsign_adapter.decide.context import Context
from capsign_adapter.decide.policy import Grant, Policy
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.rollouts import RolloutRow

MOST_KEPT_S = 60
"""Longest that public keys may be kept, seconds."""

FETCHES_BEFORE_USE = 3
"""So often at least a verifier fetches a set between the publication of a key and its first
signature (SPIFFE Federation 4.1).
"""

MOST_VERSIONS = 64
"""Versions of a key that verifiers are told of, for each algorithm; the oldest are left out."""

STATES: Mapping[int, str] = MappingProxyType(
    {
        signing_pb2.KEY_STATE_PRE_ACTIVATION: "pre-activation",
        signing_pb2.KEY_STATE_ACTIVE: "active",
        signing_pb2.KEY_STATE_DEACTIVATED: "deactivated",
    }
)
"""The states of versions that are shown, as `capsign_state` names them."""


def kept_s(policy: Policy, under_way: RolloutRow | None = None) -> int:
    """How long the public keys of a key may be kept, seconds: a third of the propagation window,
    and at most a minute. The window is that of the policy, or that of the rollout of this key which
    is under way, if it is shorter. 0: they are to be asked for each time.
    """
    plans = [policy.rollouts, *([under_way.plan] if under_way is not None else [])]
    window_ms = min(plan.propagation_ms for plan in plans)
    return min(MOST_KEPT_S, window_ms // (1000 * FETCHES_BEFORE_USE))


def shown(rows: Iterable[KeyVersionRow], algorithm: int) -> list[KeyVersionRow]:
    """The versions of a key that verifiers should know: those that sign, then the others, each
    newest first. `rows` are the versions that are not revoked, newest first.

    These are the ones whose signatures count, and the published ones that do not sign yet.
    """
    known = [row for row in rows if algorithm in row.algorithms and _is_shown(row)]
    return sorted(known, key=lambda row: (row.state not in SIGNS, -row.version))[:MOST_VERSIONS]


def _is_shown(row: KeyVersionRow) -> bool:
    if row.state in VERIFIES:
        return True
    return row.state == signing_pb2.KEY_STATE_PRE_ACTIVATION and row.published_ms > 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where signatures are made: a grant, and a protocol, role and version that it allows."""

    grant: Grant
    protocol: str
    role: str
    protocol_version: str

    @property
    def path(self) -> str:
        """Where the listener for verifiers has the set."""
        named = {
            "protocol": self.protocol,
            "role": self.role,
            "version": self.protocol_version,
        }
        return f"/v1/jwks/{self.grant.tenant}/{self.grant.name}?{urlencode(named)}"

    def context(self, row: KeyVersionRow, algorithm: int) -> Context:
        """The context of a version's subkey; there is no transcript in it."""
        return Context(
            tenant=self.grant.tenant,
            key=self.grant.key,
            epoch=row.activation_epoch,
            purpose=self.grant.purpose,
            algorithm=ALGORITHMS[algorithm].name,
            protocol=self.protocol,
            role=self.role,
            protocol_version=self.protocol_version,
        )


def place_of(policy: Policy, tenant: str, grant: str, suffix: signing_pb2.ContextSuffix) -> Place:
    """The place that is meant. What the grant pins need not be named.

    A grant that demands transcripts has a key for each of them, and no set. Raises FailureError
    NOT_FOUND or CONTEXT_NOT_ALLOWED.
    """
    found = policy.grant(grant)
    if found is None or found.tenant != tenant:
        detail = "The policy in force has no grant of this name for this tenant."
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="grant")
    protocol, role, version = choose(found.protocols, suffix)
    check_transcript({found.transcript}, suffix.transcript)
    if suffix.transcript:
        detail = "A transcript has a key of its own, which is attested and in no set."
        raise FailureError(
            failures_pb2.REASON_CONTEXT_NOT_ALLOWED, detail, field="context.transcript"
        )
    return Place(found, protocol, role, version)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key of one version. `spki` is DER."""

    row: KeyVersionRow
    algorithm: int
    kid: str
    spki: bytes


def jwk(key: PublicKey) -> dict[str, object]:
    """The JWK. `nbf` is when the version was activated, seconds since 1970; one that does not sign
    yet has none. `capsign_visible_since` is when its public keys were first shown. The members that
    begin with `capsign_` are ours: RFC 7517 section 4 has readers pass over what they do not know.
    """
    members: dict[str, object] = {
        **public_members(key.spki),
        "kid": key.kid,
        "alg": ALGORITHMS[key.algorithm].jose,
        "use": "sig",
        "capsign_state": STATES[key.row.state],
        "capsign_version": key.row.version,
        "capsign_visible_since": key.row.published_ms // 1000,
    }
    if key.row.activated_ms:
        members["nbf"] = key.row.activated_ms // 1000
    return members


@dataclass(frozen=True, slots=True)
class KeySet:
    """A JWK Set: its bytes, and their entity tag (RFC 9110 section 8.8.3)."""

    body: bytes
    etag: str
    kept_s: int
    """How long it may be kept, seconds."""
    newest: int
    """The newest version of the key in it; 0: none."""
    sequence: int
    """The revocation epoch that it is of."""


def key_set(keys: Sequence[PublicKey], epoch: int, kept_s: int) -> KeySet:
    """The set, in the order given, which may be kept for `kept_s` seconds. `epoch` becomes its
    sequence: it never falls, and of two sets of one place the one with the larger sequence is the
    newer. Every replica makes the same bytes.
    """
    members = {
        "keys": [jwk(key) for key in keys],
        "capsign_sequence": epoch,
        "capsign_refresh_hint": kept_s,
    }
    body = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    digest = urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
    newest = max((key.row.version for key in keys), default=0)
    return KeySet(body, f'"{digest}"', kept_s, newest, epoch)
