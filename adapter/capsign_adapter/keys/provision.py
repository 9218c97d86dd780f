"""Makes keys in the token, and checks that the token holds the keys that the store knows.

Keys are made only when an operator asks. At start nothing is made, repaired or removed: a key that
is missing, weak or replaced stops the start, and an operator must look.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2

from capsign_adapter.algorithms.table import TABLE
from capsign_adapter.keys import labels
from capsign_adapter.keys.accounting import accounted
from capsign_adapter.keys.check_values import of_pair, of_secret
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.erasures import Erasure
from capsign_adapter.model.key_versions import KeyClaim, KeyVersionRow
from capsign_adapter.model.lifecycle import KEY_VERSION, AuthorityState
from capsign_adapter.token.interface import (
    KeyExistsError,
    KeyMissingError,
    Token,
    TokenError,
)


class Inventory(Protocol):
    """What is needed of the store; see `store.interfaces`."""

    def key_versions(self) -> list[KeyVersionRow]: ...

    def authorities(self) -> list[AuthorityRow]: ...

    def key_claims(self) -> list[KeyClaim]: ...

    def erasures(self) -> list[Erasure]: ...


class KeyWeakError(Exception):
    """A key in the token lacks an attribute that it must have, for example that it is not
    extractable.
    """


class InventoryError(Exception):
    """The token does not hold the keys that it must. `findings` has a sentence for each of them."""

    def __init__(self, findings: Sequence[str]) -> None:
        shown = " ".join(findings[:8]) + (
            f" And {len(findings) - 8} more." if len(findings) > 8 else ""
        )
        advice = (
            "Nothing was changed. Attach the right token or restore it from its backup, "
            "then start again; "
            "`capsign-adapter --config FILE provision` makes what the policy names for "
            "the first time."
        )
        super().__init__(f"{shown} {advice}")
        self.findings = tuple(findings)


def next_version(
    tenant: str, key: str, rows: Iterable[KeyVersionRow], token_labels: Iterable[str]
) -> int:
    """Returns the number of a new version: above all that the store or the token has."""
    stored = max((row.version for row in rows if (row.tenant, row.key) == (tenant, key)), default=0)
    return max(stored, labels.highest_version(tenant, key, token_labels)) + 1


def make_derived(
    token: Token, tenant: str, key: str, version: int, names: Sequence[int], now_ms: int
) -> KeyVersionRow:
    """A derivation root with its attestation key pair; `names` are the algorithms that may be
    derived from it.

    The row is PRE_ACTIVATION and not stored yet. If the caller dies before it is stored, the
    objects stay in the token without a row; `next_version` steps over them. Raises FailureError,
    KeyWeakError, TokenError.
    """
    if not names or any(
        number not in ALGORITHMS or not ALGORITHMS[number].derivable for number in names
    ):
        raise FailureError(
            reasons.REASON_ALGORITHM_NOT_ALLOWED,
            "A derived key is for algorithms that can be derived.",
        )
    label = labels.key_version(tenant, key, version)
    _make_secret(token, label)
    _make_pair(token, labels.attestation(label), algorithms.ALGORITHM_ES256)
    check = of_secret(token, label)
    return KeyVersionRow(
        tenant,
        key,
        version,
        KEY_VERSION.initial,
        tuple(names),
        label,
        check,
        now_ms,
        since_ms=now_ms,
    )


def make_direct(
    token: Token,
    tenant: str,
    key: str,
    version: int,
    algorithm: algorithms.Algorithm.ValueType,
    now_ms: int,
) -> KeyVersionRow:
    """A key pair that signs in the token. Otherwise as `make_derived`."""
    row = ALGORITHMS.get(algorithm)
    if row is None or algorithms.CUSTODY_CLASS_HSM_DIRECT not in row.custody:
        raise FailureError(
            reasons.REASON_ALGORITHM_NOT_ALLOWED, "This algorithm cannot sign in the token."
        )
    _demand_feature(token, algorithm)
    label = labels.key_version(tenant, key, version)
    _make_pair(token, label, algorithm)
    check = of_pair(token, label)
    return KeyVersionRow(
        tenant,
        key,
        version,
        KEY_VERSION.initial,
        (algorithm,),
        label,
        check,
        now_ms,
        derived=False,
        since_ms=now_ms,
    )


def make_pepper(token: Token, tenant: str) -> None:
    """Make the secret from which a tenant's commitment key comes. Raises FailureError,
    KeyWeakError, TokenError.
    """
    _make_secret(token, labels.pepper(tenant))


def make_authority(token: Token, version: int) -> None:
    """Make the key pair of a certificate authority. Raises FailureError, KeyWeakError,
    TokenError.
    """
    _make_pair(token, labels.authority(version), algorithms.ALGORITHM_ES256)


def make_service_keys(token: Token) -> None:
    """Make the adapter's own keys: those of the log and the mint's secret. Raises FailureError,
    KeyWeakError, TokenError.
    """
    _demand_feature(token, algorithms.ALGORITHM_ED25519)  # C2SP checkpoints are signed with Ed25519
    _make_pair(token, labels.LOG, algorithms.ALGORITHM_ED25519)
    _make_secret(token, labels.MINT)
    make_log_root(token)


def make_log_root(token: Token) -> None:
    """Make the secret of the log's ML-DSA-44 key. Raises FailureError, KeyWeakError, TokenError."""
    _make_secret(token, labels.LOG_ROOT)


def assert_inventory(
    token: Token,
    rows: Iterable[KeyVersionRow],
    tenants: Iterable[str],
    authorities: Iterable[AuthorityRow] = (),
) -> None:
    """Every key that should be in the token is there, strong, and the one that was made. Raises
    InventoryError, TokenError.

    Destroyed versions and retired authorities are not looked for. `tenants` are those whose
    commitments are still made.
    """
    findings: list[str] = []
    for label in (labels.LOG, labels.MINT, *(labels.pepper(tenant) for tenant in tenants)):
        findings += _strength(token, label)
    for row in rows:
        if row.state != signing_pb2.KEY_STATE_DESTROYED:
            findings += _version_findings(token, row)
    for authority in authorities:
        if authority.state != AuthorityState.RETIRED:
            findings += _authority_findings(token, authority)
    if findings:
        raise InventoryError(findings)


def unknown_objects(
    token: Token,
    rows: Iterable[KeyVersionRow],
    tenants: Iterable[str],
    authorities: Iterable[AuthorityRow] = (),
    claims: Iterable[KeyClaim] = (),
    erasures: Iterable[Erasure] = (),
) -> list[str]:
    """Returns the labels of keys in the token that nothing accounts for, versions that were shown
    to be gone included: each is an incident.

    The key of a retired authority may be there, since nobody trusts it. So may what is being made
    under a claim, and what is destroyed in the store and about to be in the token. Raises
    TokenError.
    """
    known = accounted(tuple(rows), tenants, authorities, claims, erasures).known
    return [label for label in token.labels() if label not in known]


def unaccounted(
    token: Token, store: Inventory, tenants: Sequence[str], pause: Callable[[], None]
) -> list[str]:
    """As `unknown_objects`, of what the store says, and not of what is being made right now: that
    is in the token a moment before it is in the store. So whatever seems unknown is looked at once
    more after `pause`.
    """

    def look() -> list[str]:
        # what is made is claimed before, and recorded before its claim ends
        claims = store.key_claims()
        authorities, erased = store.authorities(), store.erasures()
        return unknown_objects(token, store.key_versions(), tenants, authorities, claims, erased)

    first = look()
    if not first:
        return []
    pause()
    return [label for label in look() if label in first]


def withdraw(token: Token, *made: str) -> None:
    """Destroy keys that this call made and nobody has seen: left alone, each further try would
    leave others.
    """
    for label in made:
        with contextlib.suppress(TokenError):
            token.destroy(label)


def _demand_feature(token: Token, algorithm: algorithms.Algorithm.ValueType) -> None:
    row = TABLE[algorithm].in_token
    needed = row.needs if row is not None else None
    if needed is not None and needed not in token.features:
        name = ALGORITHMS[algorithm].name
        detail = (
            f"The token {token.name} has no {name} keys; nothing was made. Use a token that "
            f"can make and use them."
        )
        raise FailureError(reasons.REASON_ALGORITHM_NOT_ALLOWED, detail)


def _make_secret(token: Token, label: str) -> None:
    try:
        token.generate_secret(label)
    except KeyExistsError as error:
        raise _exists(label) from error
    _demand_strength(token, label)


def _make_pair(token: Token, label: str, algorithm: algorithms.Algorithm.ValueType) -> None:
    try:
        token.generate_key_pair(label, algorithm)
    except KeyExistsError as error:
        raise _exists(label) from error
    _demand_strength(token, label)


def _exists(label: str) -> FailureError:
    detail = (
        f"The token holds a key {label} already; it was left as it is. Make the next version, "
        f"or ask who made this one."
    )
    return FailureError(reasons.REASON_ILLEGAL_TRANSITION, detail)


def _demand_strength(token: Token, label: str) -> None:
    weaknesses = token.attributes(label).weaknesses()
    if weaknesses:
        raise KeyWeakError(
            f"The token made the key {label}, but it {' and '.join(weaknesses)}. Do not "
            f"use it; see the token's settings."
        )


def _strength(token: Token, label: str) -> list[str]:
    try:
        weaknesses = token.attributes(label).weaknesses()
    except KeyMissingError:
        return [f"The key {label} is missing from the token."]
    return [f"The key {label} {' and '.join(weaknesses)}."] if weaknesses else []


def _version_findings(token: Token, row: KeyVersionRow) -> list[str]:
    findings = _strength(token, row.label)
    try:
        check = of_pair(token, row.label)
    except KeyMissingError:
        try:
            check = of_secret(token, row.label)
        except KeyMissingError:
            return findings or [
                f"The key {row.label} is missing from the token: neither a secret nor a "
                f"whole key pair."
            ]
        findings += _strength(token, labels.attestation(row.label))
    if not hmac.compare_digest(check, row.check_value):
        findings.append(
            f"The key {row.label} is not the one that was made: its check value differs."
        )
    return findings


def _authority_findings(token: Token, row: AuthorityRow) -> list[str]:
    findings = _strength(token, row.label)
    try:
        check = of_pair(token, row.label)
    except KeyMissingError:
        return findings or [f"The key {row.label} is missing from the token: not a whole key pair."]
    if not hmac.compare_digest(check, row.check_value):
        findings.append(
            f"The key {row.label} is not the one that was made: its check value differs."
        )
    return findings
