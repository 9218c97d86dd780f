"""Carries out the steps of the authority schedule, each with its leaf: first in the token, then in
the store.

A key pair is made before its row. If the process dies between the two, the object stays in the
token without a row; its number is skipped, and the next start reports it to an operator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act
from capsign_wire import logs
from capsign_wire.failures import FailureError

from capsign_adapter.decide.authority_schedule import Action, Lifetimes, Step
from capsign_adapter.enrol.certificates import root_certificate
from capsign_adapter.keys import labels
from capsign_adapter.keys.authority_key import AuthorityKey
from capsign_adapter.keys.check_values import check_value
from capsign_adapter.keys.provision import KeyWeakError, make_authority, withdraw
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.lifecycle import AUTHORITY, AuthorityEvent
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.interfaces.authorities import Authorities
from capsign_adapter.token.interface import Token, TokenError


@dataclass(frozen=True, slots=True)
class Realm:
    """The trust domain of the authorities, and what gives the policy that their leaves name."""

    trust_domain: str
    policy_digest: Callable[[], bytes]
    lifetimes: Lifetimes

    @property
    def actor(self) -> str:
        """The actor that leaves name for a step that the schedule required."""
        return f"spiffe://{self.trust_domain}/adapter/authority"


def take(
    step: Step,
    rows: Sequence[AuthorityRow],
    token: Token,
    store: Authorities,
    realm: Realm,
    now_ms: int,
) -> None:
    """Take a step that was decided from these rows.

    Raises FailureError ILLEGAL_TRANSITION if another replica was first, KeyWeakError, TokenError,
    and what the store raises.
    """
    if step.action == Action.PREPARE or step.row is None:
        prepare(rows, token, store, realm, now_ms)
    elif step.action == Action.ACTIVATE:
        _move(step.row, AuthorityEvent.ACTIVATE, Act.AUTHORITY_ACTIVATED, store, realm, now_ms)
    else:
        _move(step.row, AuthorityEvent.RETIRE, Act.AUTHORITY_RETIRED, store, realm, now_ms)


def prepare(
    rows: Sequence[AuthorityRow], token: Token, store: Authorities, realm: Realm, now_ms: int
) -> AuthorityRow:
    """Make the authority that follows these, and publish it. Raises as `take`."""
    newest = max((row.version for row in rows), default=0)
    version = max(newest, labels.highest_authority(token.labels())) + 1
    try:
        make_authority(token, version)
    except KeyWeakError:
        withdraw(token, labels.authority(version))
        raise
    try:
        row = _signed_by_itself(token, version, realm, now_ms)
        store.add_authority(
            row, newest, _entry(Act.AUTHORITY_PREPARED, version, realm, now_ms), now_ms
        )
    except (FailureError, StoreUnavailableError, TokenError):
        withdraw(
            token, labels.authority(version)
        )  # certainly no row; after anything else there may be one, and its key stays
        raise
    logs.event("authority.prepared", version=version)
    return row


def _signed_by_itself(token: Token, version: int, realm: Realm, now_ms: int) -> AuthorityRow:
    label = labels.authority(version)
    expires_ms = (now_ms + realm.lifetimes.authority_ms) // 1000 * 1000
    begins_ms = now_ms - realm.lifetimes.clock_skew_ms
    certificate = root_certificate(
        AuthorityKey(token, label), version, realm.trust_domain, begins_ms, expires_ms
    )
    check = check_value(token.public_key(label))
    return AuthorityRow(version, AUTHORITY.initial, certificate, label, check, now_ms, expires_ms)


def _move(
    row: AuthorityRow,
    event: AuthorityEvent,
    act: Act,
    store: Authorities,
    realm: Realm,
    now_ms: int,
) -> None:
    store.move_authority(row, event, _entry(act, row.version, realm, now_ms), now_ms)
    logs.event(f"authority.{act.name.removeprefix('AUTHORITY_').lower()}", version=row.version)


def _entry(act: Act, version: int, realm: Realm, now_ms: int) -> bytes:
    return leaf.admin(now_ms, realm.policy_digest(), act, realm.actor, f"authority/{version}", 0)
