"""What is known of a group after each step: its handle is valid, policy admits it, it has a key."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from capsign_evidence.signing_leaf import PreparedLeaf
from capsign_wire.adapter.v1 import signing_pb2 as signing
from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.types.v1 import signing_pb2

from capsign_adapter.decide.admission import Admitted
from capsign_adapter.decide.biscuits import Verified
from capsign_adapter.decide.capability import Capability
from capsign_adapter.keys.commitment import GroupFingerprint
from capsign_adapter.keys.keyring import Signer
from capsign_adapter.keys.result_seal import ResultSeal


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key version that signs, with what is recorded and answered with its signatures."""

    signer: Signer
    signed_by: signing_pb2.SignedBy
    stored: bytes
    """`signed_by` as it is in stored results."""
    row: AlgorithmRow
    takes_second: bool = False
    """Whether it signs the second input of each item."""


@dataclass(frozen=True, slots=True)
class HandleScope:
    """After 2: what binds intents to a fingerprint and records refusals."""

    capability: Capability
    fingerprint: GroupFingerprint
    leaf: PreparedLeaf
    max_uses: int
    is_open: bool
    """Whether the caller leaves the algorithm open."""

    def fingerprint_of(self, item: signing.SignItem) -> bytes:
        """What the intent of an item is bound to. The inputs of an open call depend on which keys
        sign now, its message does not.
        """
        return self.fingerprint.of(item.message_sha256 if self.is_open else item.input)


@dataclass(frozen=True, slots=True)
class AdmittedGroup:
    """After 3: policy admits it, at the rate of its grant. Nothing is derived yet."""

    handle: Verified
    admitted: Admitted
    algorithm: int
    """The one that it is admitted for: that of the first signature."""
    allowed: Collection[int] = ()
    """Where more than one algorithm may be signed with: those that are admitted."""

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
    """After 5: it may sign, and has its keys."""

    until_ms: int
    """When the handle expires, milliseconds since 1970: by itself, by the agent's narrowing or by
    policy, whichever is first.
    """
    rate_per_second: int
    burst: int
    results: ResultSeal
    """What seals the signatures that the ledger keeps."""
    keys: tuple[SigningKey, ...]
    """Each signs each item: one, or two while a rollout has calls answered twice."""
    second: bytes | None = None
    """Encoded fields of the second key in the leaf of each item; None if there is one key."""
