"""Erased tenants in a table. A row is written in the transaction that executes the proposal, and
never deleted.
"""

from __future__ import annotations

from collections.abc import Callable

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.erasures import Erasure
from capsign_adapter.store import log
from capsign_adapter.store.transaction import Head, Reader, Transaction

_SELECT = "SELECT tenant, epoch, erased_ms, gone_ms FROM erasures"


def every(tx: Reader) -> list[Erasure]:
    """All of them, by name."""
    return [Erasure(*row) for row in tx.all(f"{_SELECT} ORDER BY tenant")]


def find(tx: Reader, tenant: str) -> Erasure | None:
    """That of this tenant, if it was erased."""
    row = tx.one(f"{_SELECT} WHERE tenant = ?", tenant)
    return Erasure(*row) if row is not None else None


def add(
    tx: Transaction, head: Head, tenant: str, leaf: Callable[[int], bytes], now_ms: int
) -> tuple[int, int]:
    """Record that a tenant is erased; (epoch, leaf index). Raises FailureError TENANT_ERASED if it
    was before.
    """
    head.epoch += 1
    added = tx.run(
        "INSERT INTO erasures (tenant, epoch, erased_ms, gone_ms) VALUES (?, ?, ?, 0)"
        " ON CONFLICT DO NOTHING",
        tenant,
        head.epoch,
        now_ms,
    )
    if not added:
        detail = f"The tenant {tenant} is erased already."
        raise FailureError(failures_pb2.REASON_TENANT_ERASED, detail)
    return head.epoch, log.sequence(tx, head, [leaf(head.epoch)], now_ms)


def prove_gone(
    tx: Transaction, head: Head, tenant: str, leaf: Callable[[int], bytes], now_ms: int
) -> int:
    """Record, once, that the pepper is gone from the token; the leaf's index. Raises FailureError
    ILLEGAL_TRANSITION if that is known already, or the tenant is not erased.
    """
    moved = tx.run(
        "UPDATE erasures SET gone_ms = ? WHERE tenant = ? AND gone_ms = 0", now_ms, tenant
    )
    if not moved:
        detail = f"The tenant {tenant} is not erased, or its pepper is known to be gone."
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    return log.sequence(tx, head, [leaf(head.epoch)], now_ms)
