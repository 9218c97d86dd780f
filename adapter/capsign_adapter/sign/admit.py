"""One group of a batch, decided: steps 2 to 5 of the signing path. Everything that its items share
is worked out here once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from capsign_evidence.leaf import PreparedLeaf, SigningLeaf
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.algorithms import ALGORITHMS, AlgorithmRow
from capsign_wire.context_rule import choose
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign_adapter.decide import cost
from capsign_adapter.decide.admission import Admitted, admit, custody_ok
from capsign_adapter.decide.biscuits import Verified
from capsign_adapter.decide.budget import Budget
from capsign_adapter.decide.capability import Capability
from capsign_adapter.decide.context import Context
from capsign_adapter.decide.handle_cache import Verdicts
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy
from capsign_adapter.keys.commitment import CommitmentKeys, GroupFingerprint
from capsign_adapter.keys.keyring import Keyring, Signer
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.sign.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Bound:
    """A group whose handle is good: enough to bind intents to a fingerprint and to record
    refusals.
    """

    capability: Capability
    row: AlgorithmRow
    fingerprint: GroupFingerprint
    leaf: PreparedLeaf
    max_uses: int


@dataclass(frozen=True, slots=True)
class Ready(Bound):
    """A group that may sign."""

    until_ms: int
    """When the handle's life ends, by the handle, by the agent's narrowing or by the policy,
    whichever is first.
    """
    rate_per_second: int
    burst: int
    signer: Signer
    signed_by: signing_pb2.SignedBy
    stored_prefix: bytes
    """SignedItem{signed_by} serialised: with SignedItem{signature} behind it, it is the stored
    answer.
    """


@dataclass(frozen=True, slots=True)
class Decided:
    """A group that policy lets sign, as fast as the rate lets it. Nothing is derived yet."""

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


class Groups:
    """Decides groups. Holds no state of its own beyond the caches it was given."""

    def __init__(
        self,
        policy: Policy,
        verdicts: Verdicts,
        keyring: Keyring,
        commitments: CommitmentKeys,
        budget: Budget,
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._verdicts = verdicts
        self._keyring = keyring
        self._commitments = commitments

    def verify(
        self, token: bytes, peer: Peer, now_ms: int, spend: Callable[[int], None] = lambda _: None
    ) -> Verified:
        """2. Verify the handle, bound to this workload and this certificate key. Raises
           FailureError.

        One that was not seen lately is charged first, and then `spend` is told what it costs.
        """

        def charge(cost_us: int) -> None:
            self._budget.charge(peer, cost_us)
            spend(cost_us)

        skew_ms = self._policy.limits.clock_skew_ms
        return self._verdicts.verify(token, peer.spiffe_id, peer.key_hash, now_ms, skew_ms, charge)

    def refused(self, handle: Verified, peer: Peer, group: pb.SignGroup) -> Bound:
        """What a refusal is recorded under: the context as the handle settles it, or as it was
        asked for; no key.
        """
        asked, capability, row = group.context, handle.capability, ALGORITHMS[group.algorithm]
        try:
            settled = choose(capability.protocols, asked)
        except FailureError:
            settled = (asked.protocol, asked.role, asked.protocol_version)
        commitment = self._commitments.for_tenant(capability.tenant)
        fingerprint = commitment.group(capability.grant, row.name, *settled, asked.transcript)
        return Bound(capability, row, fingerprint, self._leaf(capability, peer, group).prepare(), 0)

    def decide(
        self, handle: Verified, snapshot: Snapshot, group: pb.SignGroup, now_ms: int
    ) -> Decided:
        """3. Decide by policy. Raises FailureError."""
        skew_ms = self._policy.limits.clock_skew_ms
        return Decided(
            handle,
            admit(
                handle,
                self._policy,
                snapshot.revoked,
                group.algorithm,
                group.context,
                now_ms,
                skew_ms,
            ),
        )

    def ready(
        self,
        decided: Decided,
        snapshot: Snapshot,
        peer: Peer,
        group: pb.SignGroup,
        spend: Callable[[int], None] = lambda _: None,
    ) -> Ready:
        """5. Derive: the token may have work to do, so the rate is asked first, and `spend` is told
           what a first use costs.

        Raises FailureError.
        """
        admitted, capability, row = (
            decided.admitted,
            decided.capability,
            ALGORITHMS[group.algorithm],
        )
        version = snapshot.active(capability.tenant, capability.key, row.number)
        if version is None:
            raise FailureError(
                failures_pb2.REASON_KEY_NOT_ACTIVE,
                "This key has no active version for this algorithm.",
            )
        custody_ok(admitted.min_custody, self._keyring.custody(version, row.number))
        context = context_of(capability, admitted, version, row)
        digest = context.digest()
        if not self._keyring.holds(version, capability.purpose, row.number, digest):
            spend(cost.first_use(bool(admitted.transcript)))
        signer = self._keyring.signer(version, capability.purpose, row.number, digest)
        if group.expected_kid and group.expected_kid != signer.kid:
            raise FailureError(
                failures_pb2.REASON_KEY_MOVED,
                "The key has another current version.",
                field="expected_kid",
            )
        signed_by = signing_pb2.SignedBy(
            kid=signer.kid,
            version=version.version,
            custody=signer.custody,
            policy_digest=self._policy.digest,
            context_digest=digest,
            attestation=self._keyring.attestation(version, row.number, context),
        )
        leaf = replace(
            self._leaf(capability, peer, group),
            key_version=version.version,
            custody=signer.custody,
            context_digest=digest,
        )
        settled = (admitted.protocol, admitted.role, admitted.protocol_version, admitted.transcript)
        return Ready(
            capability=capability,
            row=row,
            fingerprint=self._commitments.for_tenant(capability.tenant).group(
                capability.grant, row.name, *settled
            ),
            leaf=leaf.prepare(),
            max_uses=admitted.max_uses,
            until_ms=min(decided.handle.expires_ms, admitted.expires_ms),
            rate_per_second=admitted.rate_per_second,
            burst=admitted.burst,
            signer=signer,
            signed_by=signed_by,
            stored_prefix=pb.SignedItem(signed_by=signed_by).SerializeToString(),
        )

    def _leaf(self, capability: Capability, peer: Peer, group: pb.SignGroup) -> SigningLeaf:
        return leaf_of(
            capability, peer, self._policy.digest, algorithm=group.algorithm, caller=group.caller
        )


def leaf_of(
    capability: Capability,
    peer: Peer,
    policy_digest: bytes,
    *,
    algorithm: int = 0,
    caller: str = "",
) -> SigningLeaf:
    """What every entry about this handle in the hands of this peer says."""
    return SigningLeaf(
        workload=peer.spiffe_id,
        cert_key_hash=peer.key_hash,
        tenant=capability.tenant,
        key=capability.key,
        purpose=capability.purpose,
        grant=capability.grant,
        handle_serial=capability.serial,
        policy_digest=policy_digest,
        algorithm=algorithm,
        caller=caller,
    )


def context_of(
    capability: Capability, admitted: Admitted, version: KeyVersionRow, row: AlgorithmRow
) -> Context:
    """The context of a subkey: from the handle, the key's state and what admission let through;
    nothing from the caller alone.
    """
    return Context(
        tenant=capability.tenant,
        key=capability.key,
        epoch=version.activation_epoch,
        purpose=capability.purpose,
        algorithm=row.name,
        protocol=admitted.protocol,
        role=admitted.role,
        protocol_version=admitted.protocol_version,
        transcript=admitted.transcript,
    )
