"""The public keys of a context, for verifiers."""

from __future__ import annotations

from typing import NamedTuple

from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2

from capsign_adapter.decide import cost, key_acts
from capsign_adapter.decide.admission import admit, in_force
from capsign_adapter.decide.jwks import KeySet
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.signing_versions import signing_with
from capsign_adapter.keys.keyring import Keyring, Signer
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.sign.admit import Admission, context_of
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.key_readers import KeyReaders
from capsign_adapter.sign.key_sets import KeySets
from capsign_adapter.sign.open_calls import admit_open, malformed
from capsign_adapter.sign.scope import AdmittedGroup
from capsign_adapter.sign.snapshot import Snapshot, Snapshots


class ContextKeys(NamedTuple):
    """The keys of a context, with signers, and what they were decided under."""

    found: list[tuple[signing_pb2.PublicKey, Signer]]
    signing_kids: list[str]
    """Of those that sign a call of this workload now, in the order of its signatures."""
    snapshot: Snapshot
    group: AdmittedGroup


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

    def fetched(self, peer: Peer, request: pb.GetPublicKeysRequest) -> pb.GetPublicKeysResponse:
        """Returns the public keys for whoever verifies with them, and for how many seconds he may
        keep them; remembers that he has them. Who asks what signs an open call verifies nothing
        with it. Raises as `with_signing`, and INPUT_MALFORMED.
        """
        if request.open_algorithm != (not request.algorithm):
            raise malformed("Name an algorithm, or say that it is left open.", field="algorithm")
        told = self.with_signing(peer, request.handle, request.algorithm, request.context)
        keys, capability, snapshot = (
            [key for key, _ in told.found],
            told.group.capability,
            told.snapshot,
        )
        if request.algorithm:
            newest = max(key.version for key in keys)
            self._readers.served(capability.grant, peer.spiffe_id, newest, snapshot.epoch)
        keep_s = snapshot.kept_s(capability.tenant, capability.key)
        return pb.GetPublicKeysResponse(
            keys=keys, refresh_hint_s=keep_s, signing_kids=told.signing_kids
        )

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
        """Returns those of `with_signing`."""
        return self.with_signing(peer, token, algorithm, suffix).found

    def with_signing(
        self,
        peer: Peer,
        token: bytes,
        algorithm: algorithms_pb2.Algorithm.ValueType,
        suffix: signing_pb2.ContextSuffix,
    ) -> ContextKeys:
        """Returns the public key and the signer of each version that verifiers should know: first
        those that sign for this workload, then what signs, then the others, newest first. An
        `algorithm` of 0: those that sign where a call leaves it open. Raises FailureError as
        signing would, RATE_LIMITED, KEY_NOT_ACTIVE or KEY_SUSPENDED if there is no version;
        TokenError.
        """
        now = now_ms()
        # The handle first: nobody without one makes the store answer.
        handle = self._admission.verify(token, peer, self._snapshots.policy(), now)
        snapshot, capability = self._snapshots.refresh(), handle.capability
        name = (capability.tenant, capability.key)
        if algorithm:
            policy = snapshot.policy
            skew_ms = policy.limits.clock_skew_ms
            admitted = admit(handle, policy, snapshot.revoked, algorithm, suffix, now, skew_ms)
            group = AdmittedGroup(handle, admitted, algorithm)
        else:
            group = admit_open(handle, snapshot, suffix, now)
        signing = signing_with(snapshot, name, peer.spiffe_id, algorithm, group.allowed)
        wanted = list(signing)
        if algorithm:
            # What this workload's own calls are signed with comes first: mu is made for it.
            wanted = [each for each in signing if each[1] == algorithm]
            known = snapshot.verifiable(*name, algorithm)
            wanted += [(row, algorithm) for row in known if (row, algorithm) not in wanted]
        if not wanted:
            raise key_acts.none_signs(snapshot.versions.get(name, ()), *name, group.algorithm)
        found = [self._key(peer, group, *each) for each in wanted]
        kids = [key.kid for (key, _), each in zip(found, wanted, strict=True) if each in signing]
        return ContextKeys(found, kids, snapshot, group)

    def _key(
        self, peer: Peer, group: AdmittedGroup, version: KeyVersionRow, algorithm: int
    ) -> tuple[signing_pb2.PublicKey, Signer]:
        """Derives one, at the peer's cost."""
        row = ALGORITHMS[algorithm]
        context = context_of(group.capability, group.admitted, version, row)
        digest, purpose = context.digest(), group.capability.purpose
        if not self._keyring.holds(version, purpose, row.number, digest):
            charged = cost.first_use(bool(group.admitted.transcript))
            self._admission.budget.charge(peer, charged)
        attestation = self._keyring.attestation(version, row.number, context)
        key = self._keyring.public_key(version, purpose, row.number, digest, attestation)
        return key, self._keyring.signer(version, purpose, row.number, digest)
