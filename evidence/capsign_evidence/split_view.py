"""What an agent keeps when an adapter shows it a log that contradicts what it has seen: both signed
checkpoints, and the proof that was given for them. docs/formats.md has the file.

A log signs one tree. Two checkpoints of it, one of which does not extend the other, are evidence
against whoever holds the log's key.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from capsign_evidence.checkpoint import TreeHead, open_checkpoint
from capsign_evidence.note import NoteError, VerifierKey, decode_base64
from capsign_evidence.proofs import MAX_PROOF_HASHES, ProofError, verify_consistency

FORMAT = "capsign-split-view/1"

MAX_FILE_LEN = 1024 * 1024
"""Longest file that is read, bytes. Two notes of 64 KiB and 64 hashes fit whatever their bytes are:
the longest escape has six, that of a control character in JSON.
"""


class Fault(IntEnum):
    """How a checkpoint contradicts what was seen before; the numbers are those of `LogFault`."""

    SIGNATURE = 1
    OTHER_LOG = 2
    FORKED = 3
    INCONSISTENT = 4
    SHRUNK = 5
    WITHHELD = 6


class Finding(IntEnum):
    """What a split view proves."""

    NOTHING = 0
    """One tree extends the other, or one of them is not signed by the log's key."""
    TWO_TREES = 1
    """The log's key signed two trees of one size: proven by the file alone."""
    NOT_IN_LOG = 2
    """The log's key signed a tree that is not that of the log at hand."""
    UNDECIDED = 3
    """The log's key signed both, and no proof joins them; or a leaf was told of and not shown: the
    log itself decides.
    """
    WITHHELD = 4
    """The log at hand has the leaf that was told of, and what was shown ends before it."""


@dataclass(frozen=True, slots=True)
class SplitView:
    """The content of the file. `seen` is empty if there was no checkpoint before, `proof` if none
    was given. Notes are as they came.
    """

    adapter: str
    found_ms: int
    fault: Fault
    log_key: str
    seen: bytes
    shown: bytes
    proof: tuple[bytes, ...] = ()
    told: int = 0
    """With WITHHELD: leaves of the smallest tree that has what the adapter told of."""

    def encode(self) -> bytes:
        """The file. Bytes of a note that are no UTF-8 are escaped: it is none then. A proof of more
        than `MAX_PROOF_HASHES` joins nothing, and is cut there. `parse` reads whatever this
        returns, as long as the notes are within their bounds.
        """
        fields: dict[str, Any] = {
            "format": FORMAT,
            "adapter": self.adapter,
            "found_ms": self.found_ms,
            "fault": self.fault.name.lower(),
            "log_key": self.log_key,
            "seen": self.seen.decode("utf-8", "backslashreplace"),
            "shown": self.shown.decode("utf-8", "backslashreplace"),
            "proof": [base64.b64encode(one).decode() for one in self.proof[:MAX_PROOF_HASHES]],
        }
        if self.told:
            fields["told"] = self.told
        return (json.dumps(fields, ensure_ascii=False, indent=2) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> SplitView:
        """Reads a file. Raises ValueError if it is none."""
        if len(data) > MAX_FILE_LEN:
            raise ValueError(f"a split view has at most {MAX_FILE_LEN} bytes")
        try:
            fields: Any = json.loads(data)
        except (ValueError, RecursionError):
            raise ValueError(f"this is not a file of the format {FORMAT}") from None
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise ValueError(f"this is not a file of the format {FORMAT}")
        try:
            proof = tuple(decode_base64(one) for one in fields["proof"])
            split = cls(
                str(fields["adapter"]),
                int(fields["found_ms"]),
                Fault[str(fields["fault"]).upper()],
                str(fields["log_key"]),
                str(fields["seen"]).encode(),
                str(fields["shown"]).encode(),
                proof,
                int(fields.get("told", 0)),
            )
        except KeyError as error:
            raise ValueError(f"the field {error} is missing, or says what is unknown") from None
        except (TypeError, ValueError, OverflowError):
            raise ValueError("a field is not of its type") from None
        if len(proof) > MAX_PROOF_HASHES:
            raise ValueError(f"a proof has at most {MAX_PROOF_HASHES} hashes")
        return split

    def heads(self, key: VerifierKey) -> tuple[TreeHead | None, TreeHead | None]:
        """What was seen and what was shown; None for one that this key has not signed."""
        return _head(self.seen, key), _head(self.shown, key)


def judge(
    split: SplitView, key: VerifierKey, root_of: Callable[[int], bytes | None] = lambda _: None
) -> Finding:
    """What the file proves against the holder of the log's key. `root_of` returns the root of the
    log at hand for a number of leaves, None if there is no log at hand, or not so large.
    """
    seen, shown = split.heads(key)
    if shown is None:
        return Finding.NOTHING
    if split.fault is Fault.WITHHELD:
        return _withheld(split, shown, root_of)
    if seen is not None and seen.size == shown.size:
        return Finding.NOTHING if seen.root == shown.root else Finding.TWO_TREES
    if seen is not None and _joined(seen, shown, split.proof):
        return Finding.NOTHING
    signed = [head for head in (seen, shown) if head is not None]
    roots = [(head, root_of(head.size)) for head in signed]
    if any(root not in {None, head.root} for head, root in roots):
        return Finding.NOT_IN_LOG
    if all(root == head.root for head, root in roots):
        return Finding.NOTHING
    return Finding.UNDECIDED


def _withheld(split: SplitView, shown: TreeHead, root_of: Callable[[int], bytes | None]) -> Finding:
    """What the adapter told of is the agent's word; whether it is there the log says."""
    if shown.size >= split.told:
        return Finding.NOTHING
    root = root_of(shown.size)
    if root is not None and root != shown.root:
        return Finding.NOT_IN_LOG
    return Finding.UNDECIDED if root_of(split.told) is None else Finding.WITHHELD


def _joined(one: TreeHead, other: TreeHead, proof: tuple[bytes, ...]) -> bool:
    old, new = sorted((one, other), key=lambda head: head.size)
    if not old.size:
        return False
    try:
        verify_consistency(old.size, old.root, new.size, new.root, proof)
    except ProofError:
        return False
    return True


def _head(note: bytes, key: VerifierKey) -> TreeHead | None:
    try:
        return open_checkpoint(note, key)
    except NoteError:
        return None
