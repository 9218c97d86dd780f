"""2, 3 and 5: verify a group's handle, decide by policy, derive its key. What the items of a group
share is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from capsign_evidence.signing_leaf import SecondKey, SigningLeaf
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.algorithms import ALGORITHMS, AlgorithmRow
from capsign_wire.context_rule import choose
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign_adapter.decide import cost, key_acts
from capsign_adapter.decide.admission import Admitted, custody_ok
from capsign_adapter.decide.biscuits import Verified
from capsign_adapter.decide.budget import Budget
from capsign_adapter.decide.capability import Capability
from capsign_adapter.decide.context import Context
from capsign_adapter.decide.handle_cache import HandleCache
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.revoked import revoked_failure
from capsign_adapter.decide.signing_versions import signing_with, takes_second_input
from capsign_adapter.keys.commitment import CommitmentKeys, GroupFingerprint
from capsign_adapter.keys.keyring import Keyring, Signer
from capsign_adapter.keys.result_seal import ResultSeal
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.sign import open_calls
from capsign_adapter.sign.scope import AdmittedGroup, HandleScope, Signable, SigningKey
from capsign_adapter.sign.snapshot import Snapshot
from capsign_adapter.store.stored_result import made_under


class Admission:
    """Decides groups. Has no state beyond the caches that it is given."""

    def __init__(
        self,
        handles: HandleCache,
        keyring: Keyring,
        commitments: CommitmentKeys,
        budget: Budget,
    ) -> None:
        self._handles = handles
        self._keyring = keyring
        self._commitments = commitments
        self.budget = budget
        """Charged for what is computed for a peer, other than signatures."""

    def verify(
        self,
        token: bytes,
        peer: Peer,
        policy: Policy,
        now_ms: int,
        spend: Callable[[int], None] = lambda _: None,
    ) -> Verified:
        """2. Verify the handle, which must be bound to this workload and certificate key.

        If it is not in the cache, its cost is charged to the budget and passed to `spend`, both in
        microseconds. Raises FailureError.
        """

        def charge(cost_us: int) -> None:
            self.budget.charge(peer, cost_us)
            spend(cost_us)

        skew_ms = policy.limits.clock_skew_ms
        return self._handles.verify(token, peer.spiffe_id, peer.key_hash, now_ms, skew_ms, charge)

    def admit(
        self, handle: Verified, snapshot: Snapshot, group: pb.SignGroup, now_ms: int
    ) -> AdmittedGroup:
        """3. Decide by policy. Raises FailureError."""
        return open_calls.admit_group(handle, snapshot, group, now_ms)

    def refused(
        self, handle: Verified, policy: Policy, peer: Peer, group: pb.SignGroup
    ) -> HandleScope:
        """Returns what a refusal is recorded with: the context that the handle determines, or else
        the one that was asked for; no key.
        """
        asked, capability = group.context, handle.capability
        row = ALGORITHMS.get(group.algorithm)
        try:
            settled = choose(capability.protocols, asked)
        except FailureError:
            settled = (asked.protocol, asked.role, asked.protocol_version)
        fingerprint = self._fingerprint(capability, row, *settled, asked.transcript)
        leaf = _leaf(capability, policy, peer, group).prepare()
        return HandleScope(capability, fingerprint, leaf, 0, group.open_algorithm)

    def signable(
        self,
        group: AdmittedGroup,
        snapshot: Snapshot,
        peer: Peer,
        asked: pb.SignGroup,
        spend: Callable[[int], None] = lambda _: None,
    ) -> Signable:
        """5. Derive. Comes after the rate (4), since the token may have work to do. `spend` gets
        the cost of a first use, microseconds. Raises FailureError.
        """
        admitted, capability = group.admitted, group.capability
        row = ALGORITHMS.get(asked.algorithm)
        keys = self._keys(group, snapshot, peer, asked, spend)
        first, *rest = (key.signed_by for key in keys)
        leaf = replace(
            _leaf(capability, snapshot.policy, peer, asked),
            algorithm=first.algorithm,
            key_version=first.version,
            custody=first.custody,
            context_digest=first.context_digest,
        ).prepare()
        settled = (admitted.protocol, admitted.role, admitted.protocol_version, admitted.transcript)
        return Signable(
            capability=capability,
            fingerprint=self._fingerprint(capability, row, *settled),
            leaf=leaf,
            max_uses=admitted.max_uses,
            is_open=asked.open_algorithm,
            until_ms=min(group.handle.expires_ms, admitted.expires_ms),
            rate_per_second=admitted.rate_per_second,
            burst=admitted.burst,
            results=self.results_of(capability),
            keys=keys,
            second=_second(rest[0]) if rest else None,
        )

    def results_of(self, capability: Capability) -> ResultSeal:
        """Returns what opens the stored results of the handle's tenant. Raises FailureError
        TOKEN_UNAVAILABLE.
        """
        return self._commitments.for_tenant(capability.tenant).results

    def _keys(
        self,
        group: AdmittedGroup,
        snapshot: Snapshot,
        peer: Peer,
        asked: pb.SignGroup,
        spend: Callable[[int], None],
    ) -> tuple[SigningKey, ...]:
        """Returns the keys that sign, one or two. A second one that needs an input of its own is
        left out where the group has none. Raises FailureError, KEY_SUPERSEDED if the inputs were
        made for other keys.
        """
        name = (group.capability.tenant, group.capability.key)
        signing = signing_with(snapshot, name, peer.spiffe_id, asked.algorithm, group.allowed)
        if not signing:
            withdrawn = snapshot.withdrawn(*name, group.algorithm)
            if withdrawn is not None:
                raise revoked_failure(withdrawn)
            raise key_acts.none_signs(snapshot.versions.get(name, ()), *name, group.algorithm)
        needs_second = takes_second_input(signing)
        if needs_second and not asked.second_kid:
            if asked.open_algorithm:
                raise _superseded("second_kid")
            signing, needs_second = signing[:1], False
        keys = [
            self._key(group, snapshot.policy, version, ALGORITHMS[algorithm], spend)
            for version, algorithm in signing
        ]
        if asked.expected_kid and asked.expected_kid != keys[0].signed_by.kid:
            raise _superseded("expected_kid")
        if needs_second:
            if asked.second_kid != keys[1].signed_by.kid:
                raise _superseded("second_kid")
            keys[1] = replace(keys[1], takes_second=True)
        return tuple(keys)

    def _key(
        self,
        group: AdmittedGroup,
        policy: Policy,
        version: KeyVersionRow,
        row: AlgorithmRow,
        spend: Callable[[int], None],
    ) -> SigningKey:
        """Returns one of the keys that sign. Raises FailureError CUSTODY_TOO_WEAK and what the
        keyring raises.
        """
        custody_ok(group.admitted.min_custody, self._keyring.custody(version, row.number))
        context = context_of(group.capability, group.admitted, version, row)
        signer = self._signer(version, context, row, spend)
        signed_by = self._signed_by(signer, policy, version, context, row)
        return SigningKey(signer, signed_by, made_under(signed_by), row)

    def _signer(
        self,
        version: KeyVersionRow,
        context: Context,
        row: AlgorithmRow,
        spend: Callable[[int], None],
    ) -> Signer:
        purpose, digest = context.purpose, context.digest()
        if not self._keyring.holds(version, purpose, row.number, digest):
            spend(cost.first_use(bool(context.transcript)))
        return self._keyring.signer(version, purpose, row.number, digest)

    def _signed_by(
        self,
        signer: Signer,
        policy: Policy,
        version: KeyVersionRow,
        context: Context,
        row: AlgorithmRow,
    ) -> signing_pb2.SignedBy:
        return signing_pb2.SignedBy(
            kid=signer.kid,
            algorithm=row.number,
            version=version.version,
            custody=signer.custody,
            policy_digest=policy.digest,
            context_digest=context.digest(),
            attestation=self._keyring.attestation(version, row.number, context),
        )

    def _fingerprint(
        self,
        capability: Capability,
        row: AlgorithmRow | None,
        protocol: str,
        role: str,
        version: str,
        transcript: bytes,
    ) -> GroupFingerprint:
        commitment = self._commitments.for_tenant(capability.tenant)
        algorithm = row.name if row is not None else ""
        return commitment.group(capability.grant, algorithm, protocol, role, version, transcript)


def _superseded(field: str) -> FailureError:
    detail = "The key has another current version."
    return FailureError(failures_pb2.REASON_KEY_SUPERSEDED, detail, field=field)


def _second(signed_by: signing_pb2.SignedBy) -> bytes:
    """Returns the encoded fields of the second key in a leaf of two signatures."""
    key = SecondKey(
        signed_by.version, signed_by.algorithm, signed_by.custody, signed_by.context_digest
    )
    return key.encode()


def _leaf(capability: Capability, policy: Policy, peer: Peer, group: pb.SignGroup) -> SigningLeaf:
    return leaf_of(capability, peer, policy.digest, algorithm=group.algorithm, caller=group.caller)


def leaf_of(
    capability: Capability,
    peer: Peer,
    policy_digest: bytes,
    *,
    algorithm: int = 0,
    caller: str = "",
) -> SigningLeaf:
    """Returns the fields that all leaves about this handle and peer share."""
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
    """Returns the context of a subkey, from the handle, the key version and what admission allowed.
    Nothing comes from the caller alone (I3).
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
