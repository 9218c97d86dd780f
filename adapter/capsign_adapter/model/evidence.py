"""Agents' audit batches and checkpoints, as the store keeps them beside the log's entries."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AuditDraft:
    """A batch of an agent's records, decoded and checked by the caller; `batch_hash` is SHA-256 of
    `batch`.
    """

    workload: str
    boot_id: bytes
    previous: bytes
    first_sequence: int
    last_sequence: int
    closes: bool
    batch: bytes
    batch_hash: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class AuditAccepted:
    """The batch is durable. `leaf_index` is its leaf, also if the batch was sent before; 0 if it
    has moved to cold files since.
    """

    accepted_through: int
    leaf_index: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Contradiction:
    """The log contradicts a checkpoint that its keys signed: which, and in a sentence how."""

    sentence: str
    note: bytes
    at_ms: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed checkpoint that was made durable before it was shown to anybody."""

    tree_size: int
    root: bytes
    note: bytes
    at_ms: int = field(default=0)
