"""What this agent has seen of the log, and whether a checkpoint that it is shown agrees with it. No
I/O.

The rule: the log's key has signed it, and of the two trees the larger extends the smaller (RFC 6962
section 2.1.2). An older checkpoint than the one seen is good if that holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capsign_evidence.checkpoint import TreeHead, open_checkpoint
from capsign_evidence.note import NoteError, VerifierKey, parse_note
from capsign_evidence.proofs import ProofError, verify_consistency
from capsign_evidence.split_view import Fault


class SplitViewError(Exception):
    """What was shown contradicts what was seen."""

    def __init__(self, fault: Fault, why: str) -> None:
        super().__init__(why)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that the log's key has signed: the note, and its content."""

    note: bytes
    head: TreeHead
    key: VerifierKey


class LogView:
    """For one log. `key` is None until it is learned; `seen` until something was seen."""

    def __init__(self, key: VerifierKey | None = None, seen: Checkpoint | None = None) -> None:
        self.key = key
        self.seen = seen

    @property
    def size(self) -> int:
        """Leaves of the tree that was seen last; 0 if none was."""
        return self.seen.head.size if self.seen is not None else 0

    def read(self, note: bytes, log_key: str) -> Checkpoint:
        """The checkpoint in a note. `log_key` is the log's key as the adapter states it, believed
        only as long as none is known. Raises SplitViewError unless the log's key has signed it.
        """
        try:
            key = self.key or VerifierKey.parse(log_key)
        except NoteError as error:
            raise SplitViewError(Fault.SIGNATURE, str(error)) from None
        try:
            return Checkpoint(note, open_checkpoint(note, key), key)
        except NoteError as error:
            raise SplitViewError(_fault_of(note, key), str(error)) from None

    def gap(self, shown: Checkpoint) -> tuple[int, int] | None:
        """The sizes of the two trees, smaller first, that a proof must join; None if they have one
        size or nothing was seen.
        """
        if not self.size or self.size == shown.head.size:
            return None
        return min(self.size, shown.head.size), max(self.size, shown.head.size)

    def take(self, shown: Checkpoint, proof: Sequence[bytes]) -> bool:
        """Hold a checkpoint against what was seen; returns whether it is now what was seen last.
        Raises SplitViewError if they contradict each other.
        """
        seen = self.seen
        if seen is None or not seen.head.size:
            self.key, self.seen = shown.key, shown
            return True
        old, new = sorted((seen.head, shown.head), key=lambda head: head.size)
        if not old.size:
            raise SplitViewError(Fault.SHRUNK, "the log is empty")
        try:
            verify_consistency(
                old.size, old.root, new.size, new.root, () if old.size == new.size else proof
            )
        except ProofError as error:
            fault = Fault.FORKED if old.size == new.size else Fault.INCONSISTENT
            raise SplitViewError(fault, str(error)) from None
        if shown.head.size <= seen.head.size:
            return False
        self.seen = shown
        return True


def demand_covered(shown: Checkpoint, told: int) -> None:
    """Raise SplitViewError unless a checkpoint has as many leaves as who shows it has told of."""
    if shown.head.size < told:
        why = f"the log shows {shown.head.size} leaves, and signatures are said to be in {told}"
        raise SplitViewError(Fault.WITHHELD, why)


def _fault_of(note: bytes, key: VerifierKey) -> Fault:
    """Whether a note that does not hold is of this log, with a wrong signature, or of another."""
    try:
        lines = parse_note(note).lines
    except NoteError:
        return Fault.SIGNATURE
    ours = any((line.name, line.key_id) == (key.name, key.key_id) for line in lines)
    return Fault.SIGNATURE if ours else Fault.OTHER_LOG
