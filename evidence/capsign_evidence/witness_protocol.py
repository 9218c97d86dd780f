"""C2SP tlog-witness without its HTTP: the request and answer of `add-checkpoint`, what a witness
decides about a request, and what a log makes of the answer.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.cosignature import CosignerKey
from capsign_evidence.merkle import EMPTY_ROOT, HASH_LEN, MAX_SIZE
from capsign_evidence.note import (
    MAX_NOTE_LEN,
    NoteError,
    NoteVerifier,
    SignatureLine,
    decode_base64,
    open_note,
    parse_note,
)
from capsign_evidence.proofs import ProofError, verify_consistency

MAX_PROOF_LINES = 63
"""Most hashes that a request may have."""

MAX_REQUEST_LEN = MAX_NOTE_LEN + 64 * (MAX_PROOF_LINES + 1)
"""Longest request that is read, bytes."""

MAX_ANSWER_LEN = MAX_NOTE_LEN
"""Longest answer of a witness that is read, bytes."""

SIZE_TYPE = "text/x.tlog.size"
"""The content type of a 409, whose body is the size of the tree that the witness cosigned last."""


class RefusedError(Exception):
    """A witness does not cosign. `status` is that of HTTP, the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ConflictError(RefusedError):
    """The request is not made against the tree that the witness cosigned last, which has `size`
    leaves.
    """

    def __init__(self, size: int) -> None:
        super().__init__(409, f"{size}\n")
        self.size = size


class InconsistentError(RefusedError):
    """The log signed a tree that does not extend, as far as the request shows, the one that the
    witness cosigned. `proven`: they have one size, and two roots; otherwise whoever brings an
    honest checkpoint with a wrong proof gets this too.
    """

    def __init__(self, text: str, *, proven: bool) -> None:
        super().__init__(422, text)
        self.proven = proven


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request: the size of the tree before, the proof from there, and the checkpoint."""

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        """The body of the request."""
        lines = [f"old {self.old_size}", *(base64.b64encode(one).decode() for one in self.proof)]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> AddCheckpoint:
        """The parts of a request, nothing verified. Raises RefusedError 400."""
        if len(data) > MAX_REQUEST_LEN:
            raise RefusedError(400, f"a request has at most {MAX_REQUEST_LEN} bytes")
        head, separator, checkpoint = data.partition(b"\n\n")
        if not separator:
            raise RefusedError(400, "there is no empty line before the checkpoint")
        try:
            first, *lines = head.decode("ascii").split("\n")
            proof = tuple(decode_base64(line) for line in lines)
        except ValueError:
            raise RefusedError(400, "the lines before the checkpoint are malformed") from None
        size = _decimal(first.removeprefix("old "))
        if not first.startswith("old ") or size is None:
            raise RefusedError(400, "a request begins with `old` and a size in decimal")
        if len(proof) > MAX_PROOF_LINES or any(len(one) != HASH_LEN for one in proof):
            raise RefusedError(
                400, f"a proof has at most {MAX_PROOF_LINES} hashes of {HASH_LEN} bytes"
            )
        return cls(size, proof, checkpoint)


@dataclass(frozen=True, slots=True)
class Held:
    """The tree that a witness cosigned last."""

    size: int = 0
    root: bytes = EMPTY_ROOT


def origin_hash(origin: str) -> str:
    """SHA-256 of the origin in hexadecimal: the log's part in the paths of a witness."""
    return hashlib.sha256(origin.encode()).hexdigest()


def authentic(
    request: AddCheckpoint, logs: Mapping[str, Sequence[NoteVerifier]]
) -> tuple[TreeHead, bytes]:
    """The tree of a request whose log is known and signed it, and the note with the signatures that
    were verified, and no others. `logs`: keys by origin.

    It does not need what the witness holds. Raises RefusedError 400, 403, 404.
    """
    try:
        note = parse_note(request.checkpoint)
        head = TreeHead.parse(note.text)
    except NoteError as error:
        raise RefusedError(400, f"the checkpoint is malformed: {error}") from None
    keys = logs.get(head.origin, ())
    if not keys:
        raise RefusedError(404, "this log is not known here")
    try:
        open_note(request.checkpoint, keys)
    except NoteError as error:
        raise RefusedError(403, str(error)) from None
    if request.old_size > head.size:
        raise RefusedError(400, "the old size is above that of the checkpoint")
    known = {(key.name, key.key_id) for key in keys}
    lines = [line for line in note.lines if (line.name, line.key_id) in known]
    signers = {(line.name, line.key_id) for line in lines}
    if head.extensions and not any(
        key.covers_extensions for key in keys if (key.name, key.key_id) in signers
    ):
        # a cosignature of ours would vouch for lines that anybody may have added
        raise RefusedError(403, "no signature of the log covers the extension lines")
    return head, (note.text + "\n" + "".join(line.text() for line in lines)).encode()


def admit(request: AddCheckpoint, head: TreeHead, held: Held) -> None:
    """Raise RefusedError unless a witness that holds `held` may cosign the tree `head` of an
    authentic request: 409 (ConflictError), 422; InconsistentError if the log's signature is on
    something that contradicts what is held.

    The caller asks this and stores `head` in one transaction.
    """
    if request.old_size != held.size:
        raise ConflictError(held.size)
    if head.size == 0 and head.root != EMPTY_ROOT:
        raise InconsistentError("the root is not that of the empty tree", proven=True)
    if request.old_size == 0:
        if request.proof:
            raise RefusedError(422, "the empty tree needs no proof")
        # held is the empty tree then, and consistent with every other
        return
    if head.size == held.size:
        if head.root != held.root:
            raise InconsistentError("another tree of this size was cosigned", proven=True)
        if request.proof:
            raise RefusedError(422, "a tree of the same size needs no proof")
        return
    try:
        verify_consistency(held.size, held.root, head.size, head.root, request.proof)
    except ProofError as error:
        raise InconsistentError(str(error), proven=False) from None


def answer_of(lines: Iterable[SignatureLine]) -> bytes:
    """The body of a witness's answer."""
    return "".join(line.text() for line in lines).encode()


def read_answer(
    body: bytes, checkpoint: bytes, cosigners: Iterable[CosignerKey]
) -> list[SignatureLine]:
    """The cosignatures by these cosigners in an answer to a request with that checkpoint. Others
    are left out. Raises NoteError, also if there is none of theirs.
    """
    note = parse_note(checkpoint)
    known = {(key.name, key.key_id): key for key in cosigners}
    found: dict[tuple[str, bytes], SignatureLine] = {}
    for line in parse_note(f"{note.text}\n".encode() + body).lines:
        key = known.get((line.name, line.key_id))
        if key is not None:
            key.verify(note.text.encode(), line.signature)
            if key.time_s(line.signature) == 0:
                raise NoteError(f"the cosignature by {key.name} states no time")
            found[line.name, line.key_id] = line
    if not found:
        raise NoteError("the answer holds no cosignature by the witness that was asked")
    return list(found.values())


def read_size(body: bytes) -> int:
    """The size in the body of a 409. Raises NoteError."""
    size = _decimal(body.decode("ascii", "replace").removesuffix("\n"))
    if size is None:
        raise NoteError("the answer of the witness is no size")
    return size


def _decimal(text: str) -> int | None:
    """A size without leading zeros, or None."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        return None
    value = int(text)
    return value if str(value) == text and value <= MAX_SIZE else None
