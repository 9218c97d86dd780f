"""Versions of the policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from capsign_adapter.model.lifecycle import PolicyEvent
from capsign_adapter.model.policies import PolicyDraft, PolicyVersionRow

MAX_PROPOSED = 16
"""Most versions that wait to be approved."""

MAX_LISTED = 256
"""Most versions in one answer."""


class Policies(Protocol):
    """Rows are never deleted, and documents never change: the digest of each stands in records. At
    most one version is in force.

    A version comes into force in a transaction that raises the epoch and has a leaf; versions that
    were proposed against the one before are OVERTAKEN by it. Each of the makers of leaves is called
    in the transaction.
    """

    def policy_in_force(self) -> PolicyVersionRow | None:
        """The version in force; None in a store that has none yet."""

    def policy_versions(self, before: int = 0, limit: int = MAX_LISTED) -> list[PolicyVersionRow]:
        """Newest first: those below version `before`, 0 for all; at most `limit`."""

    def policy_version(self, version: int) -> PolicyVersionRow | None:
        """That version, in whatever state."""

    def policy_document(self, version: int) -> bytes | None:
        """Its document, as it was written."""

    def first_policy(
        self, draft: PolicyDraft, leaf: Callable[[int], bytes], now_ms: int
    ) -> PolicyVersionRow:
        """Put version 1 in force in a store that has none, and return what is in force. Where there
        is one already nothing is written: of replicas that start at once, one is first. `leaf` gets
        the epoch.
        """

    def propose_policy(
        self, draft: PolicyDraft, leaf: Callable[[PolicyVersionRow], bytes], now_ms: int
    ) -> PolicyVersionRow:
        """Record the next version, in state PROPOSED.

        Raises FailureError POLICY_STALE if the draft's base is not in force any more, and
        OVERLOADED if MAX_PROPOSED wait already.
        """

    def apply_policy(
        self,
        version: int,
        by: str,
        leaf: Callable[[PolicyVersionRow, int], bytes],
        now_ms: int,
    ) -> tuple[int, int]:
        """Put a proposed version in force; (epoch, leaf index). After it returns, no commit under
        an older epoch passes. `leaf` gets version and epoch.

        Raises FailureError POLICY_STALE if its base is not in force any more, NOT_FOUND, and
        ILLEGAL_TRANSITION.
        """

    def end_policy(
        self,
        version: int,
        event: PolicyEvent,
        by: str,
        leaf: Callable[[PolicyVersionRow], bytes],
        now_ms: int,
    ) -> int:
        """End a proposed version that does not come into force; leaf index. Raises FailureError
        NOT_FOUND and ILLEGAL_TRANSITION.
        """
