"""The context of a subkey: what it is for, encoded so that no two contexts ever share bytes (I3).

`docs/formats.md` gives the layout; `tests/vectors/context.json` gives examples.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from capsign_wire.context_rule import TRANSCRIPT_LEN


@dataclass(frozen=True, slots=True)
class Context:
    """What a subkey is bound to. Tenant, key, epoch and purpose come from the handle and the key's
    state, never from the caller.

    `epoch` is the activation epoch of the key version; `algorithm` the name in the algorithm table;
    `transcript` is empty or 32 bytes. The text fields are policy names of at most 255 bytes each.
    """

    tenant: str
    key: str
    epoch: int
    purpose: str
    algorithm: str
    protocol: str
    role: str
    protocol_version: str
    transcript: bytes = b""

    def encode(self) -> bytes:
        """Nine fields in order, each with its length as 16 bits big-endian before it; the epoch is
        64 bits big-endian.
        """
        if len(self.transcript) not in {0, TRANSCRIPT_LEN}:
            raise ValueError("a transcript is empty or 32 bytes")
        fields = (
            self.tenant.encode(),
            self.key.encode(),
            struct.pack(">Q", self.epoch),
            self.purpose.encode(),
            self.algorithm.encode(),
            self.protocol.encode(),
            self.role.encode(),
            self.protocol_version.encode(),
            self.transcript,
        )
        return b"".join(struct.pack(">H", len(value)) + value for value in fields)

    def digest(self) -> bytes:
        """SHA-256 of the encoding, 32 bytes: the context of the HkdfLabel."""
        return hashlib.sha256(self.encode()).digest()


def hkdf_info(purpose: str, context_digest: bytes, length: int) -> bytes:
    """HkdfLabel of RFC 8446 section 7.1 with label "capsign1 <purpose>": the info of HKDF-Expand
    for `length` bytes.
    """
    label = b"capsign1 " + purpose.encode()
    if not 7 <= len(label) <= 255 or len(context_digest) > 255:
        raise ValueError("label or context out of range")
    head = struct.pack(">HB", length, len(label)) + label
    return head + struct.pack(">B", len(context_digest)) + context_digest
