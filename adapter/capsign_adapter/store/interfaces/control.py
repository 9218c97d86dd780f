"""The revocation epoch, and what was revoked under it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from capsign_adapter.model.control import Control, Revocation

MAX_REVOCATIONS = 1024
"""Revocations of one answer."""


class ControlState(Protocol):
    """One row that every writer reads first, under the writers' lock, and writes back last."""

    def control(self) -> Control:
        """The control row now."""

    def revoke(
        self,
        kind: int,
        target: str,
        leaf: Callable[[int], bytes],
        now_ms: int,
        by: str = "",
    ) -> tuple[int, int]:
        """Record a revocation by `by` (SPIFFE ID) under a new epoch; (epoch, leaf index). After it
        returns, no commit under an older epoch passes.
        """

    def revocations(self) -> tuple[int, list[Revocation]]:
        """The epoch and everything that is revoked at it, in one read; what was lifted is not."""

    def revocation_history(
        self, before_epoch: int = 0, limit: int = MAX_REVOCATIONS
    ) -> list[Revocation]:
        """Revocations whether lifted or not, newest first; before that epoch, if it is not 0."""
