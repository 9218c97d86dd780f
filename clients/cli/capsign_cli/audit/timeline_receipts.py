"""Receipts that travel with a page: entries and inclusion proofs of its rows, each hash once."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from capsign_evidence.archive import Archive
from capsign_evidence.merkle import TreeDataError
from capsign_evidence.note import NoteError, parse_note
from capsign_evidence.proofs import TreeReader

MOST = 2_000
"""Most leaves whose receipts are embedded: each takes about half a kilobyte."""


def gather(archive: Archive, leaves: Iterable[int], note: bytes | None) -> dict[str, Any] | None:
    """Checkpoint, hashes of the proofs, and of each leaf its entry and the places of its proof's
    hashes; None without a checkpoint, if there are too many, or if the archive holds too little.

    `note` is the checkpoint: leaves that it does not cover yet are left out.
    """
    wanted = sorted(set(leaves))
    if note is None or len(wanted) > MOST:
        return None
    size = tree_size(note)
    tree = TreeReader(archive.hashes, size)
    places: dict[str, int] = {}
    made = []
    for leaf in wanted:
        if leaf >= size:
            continue
        try:
            proof = [_text(one) for one in tree.inclusion(leaf)]
        except TreeDataError:
            return None
        entry = next(iter(archive.entries(leaf, 1)), None)
        if entry is None:
            return None
        made.append([leaf, _text(entry), [places.setdefault(one, len(places)) for one in proof]])
    return {"checkpoint": note.decode("utf-8"), "nodes": list(places), "leaves": made}


def covering(notes: Iterable[bytes], leaf: int) -> bytes | None:
    """Of the checkpoints that cover a leaf the one with most signatures, for witnesses cosign after
    the log has signed; of as many the first.
    """
    return max((note for note in notes if tree_size(note) > leaf), key=_signatures, default=None)


def _signatures(note: bytes) -> int:
    try:
        return len(parse_note(note).lines)
    except NoteError:
        return 0


def tree_size(note: bytes) -> int:
    """The size that a checkpoint states (C2SP tlog-checkpoint: its second line)."""
    lines = note.split(b"\n", 2)
    return int(lines[1]) if len(lines) > 2 and lines[1].isdigit() else 0


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
