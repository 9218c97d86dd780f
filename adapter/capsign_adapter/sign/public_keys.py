"""The public keys of a context, for verifiers."""

from __future__ import annotations

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2

from capsign_adapter.decide import cost, key_acts
from capsign_adapter.decide.admission import admit
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.signing_versions import signing_with
from capsign_adapter.keys.keyring import Keyring, Signer
from capsign_adapter.sign.admit import Admission, context_of
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.snapshot import Snapshots


class PublicKeys:
    """Gives the keys of a context to holders of a handle that may sign in it."""

    def __init__(self, admission: Admission, keyring: Keyring, snapshots: Snapshots) -> None:
        self._admission = admission
        self._keyring = keyring
        self._snapshots = snapshots

    def of(
        self,
        peer: Peer,
        token: bytes,
        algorithm: algorithms_pb2.Algorithm.ValueType,
        suffix: signing_pb2.ContextSuffix,
    ) -> list[tuple[signing_pb2.PublicKey, Signer]]:
        """Returns the public key and the signer of each version that verifiers should know: first
        the one that signs for this workload, then what signs, then the others, newest first. Raises
        FailureError as signing would, RATE_LIMITED, KEY_NOT_ACTIVE or KEY_SUSPENDED if there is no
        version; TokenError.
        """
        now = now_ms()
        # The handle first: nobody without one makes the store answer.
        handle = self._admission.verify(token, peer, self._snapshots.policy(), now)
        snapshot, row, capability = (
            self._snapshots.refresh(),
            ALGORITHMS[algorithm],
            handle.capability,
        )
        policy = snapshot.policy
        skew_ms = policy.limits.clock_skew_ms
        admitted = admit(handle, policy, snapshot.revoked, algorithm, suffix, now, skew_ms)
        found: list[tuple[signing_pb2.PublicKey, Signer]] = []
        name = (capability.tenant, capability.key)
        rows = snapshot.verifiable(*name, algorithm)
        # The first is what this workload's own calls are signed with: an ML-DSA mu is made for it.
        signing = [
            version for version, _ in signing_with(snapshot, name, peer.spiffe_id, algorithm)
        ]
        rows.sort(key=lambda version: version not in signing[:1])
        for version in rows:
            context = context_of(capability, admitted, version, row)
            digest = context.digest()
            if not self._keyring.holds(version, capability.purpose, algorithm, digest):
                self._admission.budget.charge(peer, cost.first_use(bool(admitted.transcript)))
            attestation = self._keyring.attestation(version, algorithm, context)
            key = self._keyring.public_key(
                version, capability.purpose, algorithm, digest, attestation
            )
            found.append(
                (key, self._keyring.signer(version, capability.purpose, algorithm, digest))
            )
        if not found:
            raise key_acts.none_signs(snapshot.versions.get(name, ()), *name, algorithm)
        return found
