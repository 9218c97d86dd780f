"""Erased tenants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from capsign_adapter.model.erasures import Erasure


class Erasures(Protocol):
    """Rows are never deleted: a tenant is erased for good. One is written by the executor of its
    proposal (`custody/erasing.py`), in a transaction that raises the epoch.
    """

    def erasures(self) -> list[Erasure]:
        """All of them, by name."""

    def prove_erased(self, tenant: str, leaf: Callable[[int], bytes], now_ms: int) -> int:
        """Record, once, that the token holds no pepper of an erased tenant; the leaf's index.
        `leaf` gets the epoch. Raises FailureError ILLEGAL_TRANSITION if that is known already.
        """
