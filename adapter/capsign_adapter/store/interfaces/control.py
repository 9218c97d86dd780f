"""The revocation epoch, and what was revoked under it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from capsign_adapter.model.control import Control, Revocation


class ControlState(Protocol):
    """One row that every writer reads first, under the writers' lock, and writes back last."""

    def control(self) -> Control:
        """The control row now."""

    def revoke(
        self, kind: int, target: str, leaf: Callable[[int], bytes], now_ms: int
    ) -> tuple[int, int]:
        """Record a revocation under a new epoch; (epoch, leaf index). After it returns, no commit
        under an older epoch passes.
        """

    def revocations(self) -> tuple[int, list[Revocation]]:
        """The epoch and everything revoked up to it, in one read."""
