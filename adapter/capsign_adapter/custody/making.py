"""Makes a version of a key: in the token, then in the store, one replica at a time.

The claim comes first, so that replicas make one after another and what a dead one left in the token
is known by name. What this call made and could not record it destroys again; where it cannot, or
nobody knows whether it was recorded, the claim stays, and `clearing` ends it later.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act
from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2

from capsign_adapter.decide.policy import Key, KeyKind
from capsign_adapter.keys import labels, provision
from capsign_adapter.keys.destruction import destroy
from capsign_adapter.model.key_versions import KeyClaim, KeyVersionRow, moved
from capsign_adapter.model.lifecycle import KeyEvent
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.interfaces.database import Database
from capsign_adapter.store.interfaces.evidence import EvidenceLog
from capsign_adapter.store.interfaces.key_versions import KeyClaims, KeyVersions
from capsign_adapter.token.interface import Token, TokenError

CLAIM_SECONDS = 150
"""How long a claim lasts that nobody ends, at most."""

_CLAIM_MS = {KeyKind.DERIVED: 30_000, KeyKind.DIRECT: CLAIM_SECONDS * 1000}
"""The same by kind: longer than a token takes to make what it is for, which is long for RSA. It
says only how soon others go on after a maker died: whoever is slower than that records nothing
once another has adopted its claim.
"""


class KeyStore(KeyVersions, KeyClaims, EvidenceLog, Database, Protocol):
    """What is asked of the store about key versions."""


class Author:
    """In whose name a version is made: `actor` (SPIFFE ID) under a policy (its digest)."""

    def __init__(self, actor: str, policy_digest: bytes) -> None:
        self._actor = actor
        self._policy_digest = policy_digest

    def entry(self, act: Act, name: str, now_ms: int, epoch: int) -> bytes:
        """Returns the log's entry about an act on the version of this name."""
        return leaf.admin(now_ms, self._policy_digest, act, self._actor, name, epoch)


def make_version(
    key: Key, token: Token, store: KeyStore, author: Author, now_ms: int, *, newest: int
) -> tuple[KeyVersionRow, int, int]:
    """Make the key's next version, with the kind and algorithms that it has in policy; the row, the
    epoch, and the leaf. `newest` is its newest version until now; with 0 the first one is made,
    which is active at once.

    Raises FailureError ILLEGAL_TRANSITION if another replica makes one now, or has meanwhile;
    ALGORITHM_NOT_ALLOWED, KeyWeakError, TokenError, and what the store raises.
    """
    at_least = labels.highest_version(key.tenant, key.name, token.labels()) + 1
    wanted = KeyClaim(key.tenant, key.name, at_least, os.urandom(16), now_ms + _CLAIM_MS[key.kind])
    claim = store.claim_key(wanted, newest, now_ms)
    try:
        row = _in_token(key, token, claim.version, now_ms)
    except FailureError:  # refused before anything was made
        store.end_key_claim(claim)
        raise
    except (provision.KeyWeakError, TokenError):
        _withdraw(token, store, claim)
        raise
    if not newest:
        row = moved(row, KeyEvent.ACTIVATE, now_ms, next_activation=row.version)
    try:
        epoch, index = store.add_key_version(
            row,
            lambda epoch: author.entry(Act.KEY_CREATED, row.name, now_ms, epoch),
            now_ms,
            claim.holder,
        )
    except (FailureError, StoreUnavailableError):  # certainly no row
        _withdraw(token, store, claim)
        raise
    logs.event("key.created", tenant=key.tenant, key=key.name, version=row.version)
    return row, epoch, index


def _in_token(key: Key, token: Token, version: int, now_ms: int) -> KeyVersionRow:
    names = sorted(key.algorithms)
    if key.kind is KeyKind.DERIVED:
        return provision.make_derived(token, key.tenant, key.name, version, names, now_ms)
    algorithm = algorithms_pb2.Algorithm.ValueType(names[0])
    return provision.make_direct(token, key.tenant, key.name, version, algorithm, now_ms)


def _withdraw(token: Token, store: KeyStore, claim: KeyClaim) -> None:
    """Destroy what was made under the claim, and end it; if either fails the claim stays."""
    label = labels.key_version(claim.tenant, claim.key, claim.version)
    try:
        destroy(token, label, token.labels())
        store.end_key_claim(claim)
    except (FailureError, StoreUnavailableError, TokenError):
        logs.warning("key.left_in_token", tenant=claim.tenant, key=claim.key, version=claim.version)


def clock_of(store: Database, mine: Callable[[], int]) -> int:
    """Returns the clock of all replicas, milliseconds: the store's, where it has one."""
    told = store.clock_ms()
    return mine() if told is None else told
