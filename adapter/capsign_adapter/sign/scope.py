"""What is known of a group, step by step: its handle is good, it may sign, its key is there."""

from __future__ import annotations

from dataclasses import dataclass

from capsign_evidence.leaf import PreparedLeaf
from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.types.v1 import signing_pb2

from capsign_adapter.decide.admission import Admitted
from capsign_adapter.decide.biscuits import Verified
from capsign_adapter.decide.capability import Capability
from capsign_adapter.keys.commitment import GroupFingerprint
from capsign_adapter.keys.keyring import Signer


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key version that signs, with what is said wherever its signatures go."""

    signer: Signer
    signed_by: signing_pb2.SignedBy
    stored: bytes
    """`signed_by` as stored results have it."""
    leaf: PreparedLeaf


@dataclass(frozen=True, slots=True)
class HandleScope:
    """Under a good handle: enough to bind intents to a fingerprint and to record refusals."""

    capability: Capability
    row: AlgorithmRow
    fingerprint: GroupFingerprint
    leaf: PreparedLeaf
    max_uses: int


@dataclass(frozen=True, slots=True)
class AdmittedGroup:
    """Policy lets it sign, as fast as the rate lets it. Nothing is derived yet."""

    handle: Verified
    admitted: Admitted

    @property
    def capability(self) -> Capability:
        return self.handle.capability

    @property
    def rate_per_second(self) -> int:
        return self.admitted.rate_per_second

    @property
    def burst(self) -> int:
        return self.admitted.burst


@dataclass(frozen=True, slots=True)
class Signable(HandleScope):
    """It may sign, and its key is there."""

    until_ms: int
    """When the handle's life ends: by the handle, the agent's narrowing or the policy, whichever is
    first.
    """
    rate_per_second: int
    burst: int
    keys: tuple[SigningKey, ...]
    """Each signs each item: the newest active version."""
