"""C2SP tlog-checkpoint: a signed note that states size and root of the log."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace

from capsign_evidence.merkle import HASH_LEN, MAX_SIZE
from capsign_evidence.note import (
    NoteError,
    NoteVerifier,
    VerifierKey,
    decode_base64,
    open_note,
    sign_note,
)

MAX_ORIGIN_LEN = 255
"""Longest origin, bytes."""


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The content of a checkpoint: the log's origin, number of leaves and root. Extension lines are
    accepted and never written.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.origin or "\n" in self.origin or len(self.origin.encode()) > MAX_ORIGIN_LEN:
            raise NoteError(f"an origin is one line of at most {MAX_ORIGIN_LEN} bytes")
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_LEN:
            raise NoteError("the size or root of the checkpoint is out of range")
        if any(not line or "\n" in line for line in self.extensions):
            raise NoteError("an extension line is not empty")

    def text(self) -> str:
        """The text that is signed."""
        lines = (
            self.origin,
            str(self.size),
            base64.b64encode(self.root).decode(),
            *self.extensions,
        )
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> TreeHead:
        """Parses the text of a verified note. Raises NoteError unless it is in canonical form."""
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop():
            raise NoteError("a checkpoint has three lines or more")
        origin, size, root, *extensions = lines
        if not (size.isascii() and size.isdigit() and len(size) <= 19):
            raise NoteError("the size in the checkpoint is not a decimal number")
        head = cls(origin, int(size), decode_base64(root), tuple(extensions))
        if head.text() != text:
            raise NoteError("the size in the checkpoint has leading zeros")
        return head


def sign_checkpoint(
    size: int, root: bytes, key: VerifierKey, sign: Callable[[bytes], bytes]
) -> bytes:
    """A checkpoint whose origin is the key's name. `sign` makes the raw Ed25519 signature."""
    return sign_note(TreeHead(key.name, size, root).text(), key, sign)


def open_checkpoint(note: bytes, key: NoteVerifier) -> TreeHead:
    """Returns the content of a checkpoint, if the log's key signed it and its origin is the key's
    name. Extension lines that the key did not sign are left out.

    Raises NoteError. Lines of witnesses are allowed and not verified.
    """
    head = TreeHead.parse(open_note(note, (key,)).text)
    if head.origin != key.name:
        raise NoteError("the checkpoint is of another log than its key")
    return head if key.covers_extensions else replace(head, extensions=())
