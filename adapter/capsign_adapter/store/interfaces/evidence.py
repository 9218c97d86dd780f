"""The evidence log, and what agents report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from capsign_adapter.model.evidence import AuditAccepted, AuditDraft, Checkpoint, Contradiction


class EvidenceLog(Protocol):
    """Entries are appended, dense from index 0, and never change; their tree is RFC 6962."""

    def append(self, leaves: Sequence[bytes], now_ms: int) -> int:
        """Sequence entries that belong to no intent (administrative acts, refusals before an intent
        is known); first index.
        """

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """Hashes of tile level `level` (tree level 8 * level) from `first`; complete subtrees only,
        so maybe fewer.
        """

    def entries(self, first: int, count: int) -> list[bytes]:
        """Entries from leaf `first`, fewer if there are fewer."""

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Make a checkpoint durable; call before showing it. A smaller tree than the last saved is
        ignored. Raises ValueError for a second root of the size that was saved last.
        """

    def latest_checkpoint(self) -> Checkpoint | None:
        """Returns the last one saved."""

    def publish_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Make a checkpoint with its cosignatures durable. A smaller tree than the last one is
        ignored; of the same tree, the later call's note is kept.
        """

    def published_checkpoint(self) -> Checkpoint | None:
        """Returns the last one published."""

    def save_contradiction(self, contradiction: Contradiction) -> None:
        """Make it durable, for all replicas, that the log contradicts what it has shown. The first
        one stands.
        """

    def contradiction(self) -> Contradiction | None:
        """Returns the one that was saved."""


class AuditBatches(Protocol):
    """Batches of agents' own records. Each is accepted once, and only after the one before it in
    its boot.
    """

    def submit_audit(self, draft: AuditDraft, now_ms: int) -> AuditAccepted:
        """Accept an agent's batch exactly once. Raises AuditOutOfOrderError."""

    def audit_batches(
        self,
        workload: str = "",
        first_leaf: int = 0,
        limit: int = 256,
        end_leaf: int | None = None,
    ) -> list[tuple[int, str, bytes]]:
        """Batches taken, as (leaf index, workload, batch), ascending from a leaf; of leaves before
        `end_leaf` alone, if that is given. Give it wherever leaves may have moved to cold files: of
        those one is opened for each tile that is looked through.
        """
