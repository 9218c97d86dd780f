"""A witness in memory that behaves by the specification, and misbehaves on request."""

from __future__ import annotations

from capsign_adapter.witnesses.client import NoAnswerError, Reply
from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.cosignature import COSIGNATURE_ML_DSA_44, CosignerKey, cosign
from capsign_evidence.note import add_lines, parse_note
from capsign_evidence.witness_protocol import (
    SIZE_TYPE,
    AddCheckpoint,
    ConflictError,
    Held,
    RefusedError,
    admit,
    answer_of,
)
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey


class FakeWitness:
    """Has the methods of `WitnessClient`. `down`: no answer; `says`: this reply to whatever is
    added.
    """

    def __init__(self, name: str, number: int) -> None:
        self._private = MLDSA44PrivateKey.from_seed_bytes(bytes(31) + bytes((number,)))
        public = self._private.public_key().public_bytes_raw()
        self.key = CosignerKey(f"{name}.test", COSIGNATURE_ML_DSA_44, public)
        self.held = Held()
        self.note: bytes | None = None
        self.down = False
        self.says: Reply | None = None
        self.asked = 0

    def add_checkpoint(self, body: bytes) -> Reply:
        self.asked += 1
        if self.down:
            raise NoAnswerError("down")
        if self.says is not None:
            return self.says
        request = AddCheckpoint.parse(body)
        text = parse_note(request.checkpoint).text
        head = TreeHead.parse(text)
        try:
            admit(request, head, self.held)
        except ConflictError as conflict:
            return Reply(409, SIZE_TYPE, str(conflict).encode())
        except RefusedError as refused:
            return Reply(refused.status, "text/plain", str(refused).encode())
        lines = [cosign(text, self.key, 1_800_000_000, self._private.sign)]
        self.held = Held(head.size, head.root)
        self.note = add_lines(request.checkpoint, lines)
        return Reply(200, "text/plain", answer_of(lines))

    def checkpoint(self, origin: str) -> bytes | None:
        if self.down:
            raise NoAnswerError("down")
        return self.note

    def close(self) -> None:
        pass
