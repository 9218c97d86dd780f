"""Who makes a version of which key right now, in a table: the lock that all replicas share.

A claim is written before the token makes anything, and ends with the row of what was made. One that
nobody ended in time names the object that its maker may have left in the token; whoever clears that
away adopts the claim first, so that the maker, if it only was slow, records nothing any more.
"""

from __future__ import annotations

from dataclasses import replace

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.key_versions import KeyClaim, KeyVersionRow
from capsign_adapter.store.transaction import Reader, Row, Transaction

_COLUMNS = "tenant, key_name, version, holder, until_ms"
_OF_KEY = "WHERE tenant = ? AND key_name = ?"


def every(tx: Reader) -> list[KeyClaim]:
    """All of them."""
    return [_claim(row) for row in tx.all(f"SELECT {_COLUMNS} FROM key_claims")]  # noqa: S608 - a constant


def claim(tx: Transaction, wanted: KeyClaim, newest: int, now_ms: int) -> KeyClaim:
    """The claim with the number that it is for: at least that of `wanted`, and above every version
    that was made or is claimed, and every activation epoch that was given: a version's number is to
    be its epoch.

    Raises FailureError ILLEGAL_TRANSITION while another claim of the key lasts, or if its newest
    version is not `newest`.
    """
    others = _of_key(tx, wanted.tenant, wanted.key)
    until_ms = max((other.until_ms for other in others), default=0)
    if now_ms < until_ms:
        detail = (
            f"A version of {wanted.tenant}/{wanted.key} is being made by somebody else. Look again "
            f"in {1 + (until_ms - now_ms) // 1000} s at most."
        )
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    made = tx.one(
        f"SELECT MAX(version), MAX(activation_epoch) FROM key_versions {_OF_KEY}",  # noqa: S608 - a constant
        wanted.tenant,
        wanted.key,
    )
    found, epoch = (made[0] or 0, made[1] or 0) if made else (0, 0)
    if found != newest:
        detail = (
            f"The newest version of {wanted.tenant}/{wanted.key} is {found or 'none'} by now. Look "
            "at the key again."
        )
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    used = max(found, epoch, *(other.version for other in others))
    granted = replace(wanted, version=max(wanted.version, used + 1))
    tx.send(
        f"INSERT INTO key_claims ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",  # noqa: S608 - a constant
        granted.tenant,
        granted.key,
        granted.version,
        granted.holder,
        granted.until_ms,
    )
    return granted


def adopt(tx: Transaction, seen: KeyClaim, holder: bytes, until_ms: int, now_ms: int) -> KeyClaim:
    """Take an abandoned claim over. Raises FailureError ILLEGAL_TRANSITION if it is not as it was
    seen any more, or lasts.
    """
    if seen not in _of_key(tx, seen.tenant, seen.key) or now_ms < seen.until_ms:
        detail = f"Somebody else looks after version {seen.version} of {seen.key}."
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    tx.send(
        f"UPDATE key_claims SET holder = ?, until_ms = ? {_OF_KEY} AND version = ?",  # noqa: S608 - a constant
        holder,
        until_ms,
        seen.tenant,
        seen.key,
        seen.version,
    )
    return replace(seen, holder=holder, until_ms=until_ms)


def end(tx: Transaction, held: KeyClaim) -> None:
    """Nothing is being made under it any more. One that was adopted meanwhile stays."""
    tx.send(
        f"DELETE FROM key_claims {_OF_KEY} AND version = ? AND holder = ?",  # noqa: S608 - a constant
        held.tenant,
        held.key,
        held.version,
        held.holder,
    )


def settle(tx: Transaction, row: KeyVersionRow, holder: bytes) -> None:
    """End the claim under which a version was made, in the transaction that records it.

    Raises FailureError ILLEGAL_TRANSITION if it is another holder's by now, or there is none: then
    what was made counts as abandoned, and may have been destroyed.
    """
    held = [one for one in _of_key(tx, row.tenant, row.key) if one.version == row.version]
    if not held and not holder:
        return
    if not held or held[0].holder != holder:
        detail = (
            f"Version {row.version} of {row.key} took too long to make, or somebody else makes it. "
            "Look at the key again."
        )
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    end(tx, held[0])


def _of_key(tx: Reader, tenant: str, key: str) -> list[KeyClaim]:
    rows = tx.all(f"SELECT {_COLUMNS} FROM key_claims {_OF_KEY}", tenant, key)  # noqa: S608 - a constant
    return [_claim(row) for row in rows]


def _claim(row: Row) -> KeyClaim:
    tenant, key, version, holder, until_ms = row
    return KeyClaim(tenant, key, version, bytes(holder), until_ms)
