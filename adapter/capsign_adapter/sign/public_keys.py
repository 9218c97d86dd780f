"""The public keys of a context, for verifiers."""

from __future__ import annotations

from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2

from capsign_adapter.decide import cost, key_acts
from capsign_adapter.decide.admission import admit, in_force
from capsign_adapter.decide.capability import Capability
from capsign_adapter.decide.jwks import KeySet
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.signing_versions import signing_with
from capsign_adapter.keys.keyring import Keyring, Signer
from capsign_adapter.sign.admit import Admission, context_of
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.key_readers import KeyReaders
from capsign_adapter.sign.key_sets import KeySets
from capsign_adapter.sign.snapshot import Snapshot, Snapshots


class PublicKeys:
    """Gives the keys of a context to holders of a handle that may sign in it."""

    def __init__(
        self,
        admission: Admission,
        keyring: Keyring,
        snapshots: Snapshots,
        sets: KeySets,
        readers: KeyReaders,
    ) -> None:
        self._sets = sets
        self._admission = admission
        self._keyring = keyring
        self._snapshots = snapshots
        self._readers = readers

    def fetched(
        self, peer: Peer, request: pb.GetPublicKeysRequest
    ) -> tuple[list[signing_pb2.PublicKey], int]:
        """Returns the public keys for whoever verifies with them, and for how many seconds he may
        keep them; remembers that he has them. Raises as `of`.
        """
        snapshot, capability, found = self._found(
            peer, request.handle, request.algorithm, request.context
        )
        keys = [key for key, _ in found]
        newest = max(key.version for key in keys)
        self._readers.served(capability.grant, peer.spiffe_id, newest, snapshot.epoch)
        return keys, snapshot.kept_s(capability.tenant, capability.key)

    def jwks(self, peer: Peer, request: pb.GetJwksRequest) -> KeySet:
        """Returns the JWK Set of a context of the handle's grant, and remembers who has it. What is
        not in memory is paid for. Raises FailureError as signing would, CONTEXT_NOT_ALLOWED where
        there is no set, RATE_LIMITED; TokenError.
        """
        now = now_ms()
        handle = self._admission.verify(request.handle, peer, self._snapshots.policy(), now)
        snapshot, capability = self._snapshots.refresh(), handle.capability
        policy = snapshot.policy
        grant = in_force(capability, policy, snapshot.revoked, now, policy.limits.clock_skew_ms)
        where = (grant.tenant, grant.name, request.context)
        found = self._sets.known(*where)
        if found is None:
            self._admission.budget.charge(peer, cost.first_use(False) * len(grant.algorithms))
            found = self._sets.of(*where)
        self._readers.served(grant.name, peer.spiffe_id, found.newest, found.sequence)
        return found

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
        return self._found(peer, token, algorithm, suffix)[2]

    def _found(
        self,
        peer: Peer,
        token: bytes,
        algorithm: algorithms_pb2.Algorithm.ValueType,
        suffix: signing_pb2.ContextSuffix,
    ) -> tuple[Snapshot, Capability, list[tuple[signing_pb2.PublicKey, Signer]]]:
        """Returns the keys, the snapshot that they are of, and what the handle states."""
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
        return snapshot, capability, found
