"""The caller, as the verified certificate states it."""

from __future__ import annotations

from dataclasses import dataclass

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2


@dataclass(frozen=True, slots=True)
class Peer:
    """A workload or a person. `key_hash` is SHA-256 of the certificate's SubjectPublicKeyInfo, 32
    bytes.
    """

    spiffe_id: str
    key_hash: bytes
    not_after_ms: int

    def still_valid(self, now_ms: int) -> None:
        """Raises FailureError IDENTITY_UNKNOWN if the certificate has expired: a stream outlives
        the handshake that checked it.
        """
        if now_ms > self.not_after_ms:
            raise FailureError(
                failures_pb2.REASON_IDENTITY_UNKNOWN,
                "The certificate of this connection has expired.",
            )
