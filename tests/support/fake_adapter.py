"""An adapter that behaves: real gRPC over mutual TLS, real signatures, an idempotent ledger,
ordered audit batches.

It keeps the contract of the real one as an agent sees it (one answer per batch in order, stored
bytes for a known intent, exactly once audit) and nothing more: no policy, no token, no log.
`Faults` makes it misbehave on purpose.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import biscuit_auth
import grpc
from capsign_wire import bounds
from capsign_wire.adapter.v1 import (
    capability_pb2,
    capability_pb2_grpc,
    evidence_pb2,
    evidence_pb2_grpc,
    identity_pb2_grpc,
    signing_pb2,
    signing_pb2_grpc,
)
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from capsign_wire.types.v1 import signing_pb2 as types
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, utils
from support import fake_identity
from support.agent_pki import ADAPTER_ID, TestCa
from support.fake_log import FakeLog

ALL = (alg.ALGORITHM_ED25519, alg.ALGORITHM_ES256, alg.ALGORITHM_HS256, alg.ALGORITHM_ML_DSA_65)


@dataclass
class Grant:
    """What the fake issues handles for."""

    name: str = "tokens"
    purpose: str = "jwt"
    algorithms: tuple[int, ...] = ALL
    protocol: str = "jwt"
    roles: tuple[str, ...] = ("issuer",)
    versions: tuple[str, ...] = ("1",)
    transcript: int = types.TRANSCRIPT_RULE_ALLOWED
    life_s: float = 900.0
    rate: int = 0
    burst: int = 0


@dataclass
class Faults:
    """What goes wrong, on purpose. Hooks run on the server's threads."""

    before_answer: Callable[[signing_pb2.SignRequest], None] = lambda request: None
    """After the batch was signed and stored, before it is answered. Raise `BreakError` to end the
    stream without an answer.
    """
    answer: Callable[[signing_pb2.SignResponse], signing_pb2.SignResponse] = lambda response: (
        response
    )
    """Changes an answer."""
    refuse_item: Callable[[signing_pb2.SignGroup, signing_pb2.SignItem], int] = lambda *_: 0
    """A reason for one item; 0: sign it."""
    audit: Callable[[bytes], int] = lambda batch: 0
    """A reason for an audit batch; 0: take it."""
    issue: int = 0
    """A reason for IssueHandles and RenewHandles; 0: issue."""
    before_issue: Callable[[], object] = lambda: None
    """Before IssueHandles does anything."""
    before_keys: Callable[[], object] = lambda: None
    """Before GetPublicKeys does anything."""


class BreakError(Exception):
    """Ends a stream."""


@dataclass
class Boot:
    """One life of an agent as the fake recorded it."""

    batches: list[bytes] = field(default_factory=list)
    records: list[evidence_pb2.AuditRecord] = field(default_factory=list)


class FakeAdapter:
    """Start it, read what it saw, stop it. `port` stays the same over a restart."""

    def __init__(
        self,
        ca: TestCa,
        grants: tuple[Grant, ...] = (Grant(),),
        identity: fake_identity.FakeIdentity | None = None,
        places: int | None = None,
    ) -> None:
        """With `identity` it has an authority, which then also makes its own certificate, and an
        enrolment address. `places` are the calls that gRPC lets in at once.
        """
        self.ca = ca
        self.places = places
        self.identity = identity
        self.enrolment_port = 0
        self.bound: dict[bytes, bytes] = {}
        """SHA-256 of the public key that a handle is good for, by its token."""
        self.grants = {grant.name: grant for grant in grants}
        self.faults = Faults()
        self.port = 0
        self.spiffe_id = ADAPTER_ID
        self.keys_by_context: dict[tuple[int, bytes], list[Any]] = {}
        self.ledger: dict[bytes, tuple[bytes, types.SignedItem | None]] = {}
        self.boots: dict[bytes, Boot] = {}
        """What replicas of one store share."""
        self.handed: list[evidence_pb2.AuditRecord] = []
        """Of those records, what this replica took."""
        self.requests: list[signing_pb2.SignRequest] = []
        self.newest_state: types.KeyState.ValueType = types.KEY_STATE_ACTIVE
        self.streams = 0
        """Signing streams that were ever opened."""
        self.issued = 0
        self.renewed = 0
        self.signed = 0
        self.open = [alg.ALGORITHM_ES256]
        """What signs a call that leaves the algorithm open: one, or two."""
        self.watchers: list[Any] = []
        self.lock = threading.RLock()
        self.mint = biscuit_auth.KeyPair()
        self.serials: dict[str, list[bytes]] = {}
        self.cut = threading.Event()
        """Set when a stop has ended all calls."""
        self.log: FakeLog | None = None
        """What it shows to witnesses; None: it answers as one that knows no such call."""
        self._server: grpc.Server | None = None
        self._enrolment: grpc.Server | None = None

    def start(self) -> FakeAdapter:
        server = grpc.server(
            futures.ThreadPoolExecutor(32),
            options=[("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=self.places,
        )
        signing_pb2_grpc.add_SigningServiceServicer_to_server(_Signing(self), server)
        capability_pb2_grpc.add_CapabilityServiceServicer_to_server(_Capability(self), server)
        evidence_pb2_grpc.add_EvidenceServiceServicer_to_server(
            _Evidence(self),  # type: ignore[abstract] # nothing else is asked
            server,
        )
        if self.identity is not None:
            identity_pb2_grpc.add_IdentityServiceServicer_to_server(
                fake_identity.Identity(self.identity), server
            )
            credentials = self.identity.serving(demand_certificate=True)
            self._start_enrolment()
        else:
            certificate, key = self.ca.issue(self.spiffe_id)
            credentials = grpc.ssl_server_credentials(
                [(key, certificate)], self.ca.pem, require_client_auth=True
            )
        self.port = server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        assert self.port
        server.start()
        self._server = server
        return self

    def _start_enrolment(self) -> None:
        assert self.identity is not None
        server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        identity_pb2_grpc.add_EnrolmentServiceServicer_to_server(
            fake_identity.Enrolment(self.identity), server
        )
        credentials = self.identity.serving(demand_certificate=False)
        self.enrolment_port = server.add_secure_port(
            f"127.0.0.1:{self.enrolment_port}", credentials
        )
        server.start()
        self._enrolment = server

    def stop(self, grace: float | None = None) -> None:
        if self._enrolment is not None:
            self._enrolment.stop(grace).wait(5)
            self._enrolment = None
        if self._server is not None:
            for queue in self.watchers:
                queue.append(None)
            ending = self._server.stop(grace)
            self.cut.set()
            ending.wait(5)
            self._server = None

    def die_instead_of_answering(self) -> threading.Thread:
        """The next batch is signed and stored, and then nobody is there any more: its stream breaks
        only once all others have been cut. Gives the thread that ends everything.
        """
        dying = threading.Thread(target=self.stop)
        self.cut.clear()

        def die(_: signing_pb2.SignRequest) -> None:
            if not self.cut.is_set():
                dying.start()
                self.cut.wait(20)
            raise BreakError

        self.faults.before_answer = die
        return dying

    def tell(self, **changes: Any) -> None:
        """Push to every watcher."""
        for queue in self.watchers:
            queue.append(capability_pb2.WatchResponse(**changes))

    def rotate(self, algorithm: int) -> None:
        """A new version of every key of an algorithm."""
        with self.lock:
            for (number, _), versions in self.keys_by_context.items():
                if number == algorithm:
                    versions.insert(0, _new_key(algorithm))

    def keys(self, algorithm: int, context: bytes) -> list[Any]:
        with self.lock:
            return self.keys_by_context.setdefault((algorithm, context), [_new_key(algorithm)])

    def told(self, algorithm: int, context: bytes) -> list[types.PublicKey]:
        """The public keys of a context."""
        versions = self.keys(algorithm, context)
        return [
            types.PublicKey(
                kid=_kid(key),
                algorithm=algorithm,
                spki=_spki(key),
                version=len(versions) - index,
                state=self.newest_state if index == 0 else types.KEY_STATE_DEACTIVATED,
            )
            for index, key in enumerate(versions)
        ]

    def handle(self, grant: Grant, key_hash: bytes = b"") -> capability_pb2.IssuedHandle:
        serial = os.urandom(16)
        self.serials.setdefault(grant.name, []).append(serial)
        token = biscuit_auth.BiscuitBuilder(
            "grant({g}); serial({s});", {"g": grant.name, "s": serial.hex()}
        )
        now = time.time()
        issued = capability_pb2.IssuedHandle(
            token=bytes(token.build(self.mint.private_key).to_bytes()),
            serial=serial,
            grant=grant.name,
            purpose=grant.purpose,
            algorithms=grant.algorithms,
            rate_per_second=grant.rate,
            burst=grant.burst,
        )
        self.bound[issued.token] = key_hash
        issued.context_rule.protocols.add(
            protocol=grant.protocol, roles=grant.roles, versions=grant.versions
        )
        issued.context_rule.transcript = grant.transcript
        issued.not_before.FromMilliseconds(int(now * 1000))
        issued.expires_at.FromMilliseconds(int((now + grant.life_s) * 1000))
        return issued

    @property
    def records(self) -> list[evidence_pb2.AuditRecord]:
        """All records taken, life by life."""
        return [record for boot in self.boots.values() for record in boot.records]


class _Signing(signing_pb2_grpc.SigningServiceServicer):
    def __init__(self, fake: FakeAdapter) -> None:
        self.fake = fake

    def Sign(
        self, request_iterator: Iterator[signing_pb2.SignRequest], context: Any
    ) -> Iterator[signing_pb2.SignResponse]:
        self.fake.streams += 1
        for request in request_iterator:
            bounds.check(request)
            self.fake.requests.append(request)
            response = signing_pb2.SignResponse(batch_id=request.batch_id)
            for group in request.groups:
                response.groups.append(
                    self._group(group, request.handles[group.handle_index], _peer_key(context))
                )
            try:
                self.fake.faults.before_answer(request)
            except BreakError:
                context.abort(grpc.StatusCode.UNAVAILABLE, "broken on purpose")
            yield self.fake.faults.answer(response)

    def _group(
        self, group: signing_pb2.SignGroup, token: bytes, peer_key: bytes
    ) -> types.SignedGroup:
        signed = types.SignedGroup()
        suffix = group.context.SerializeToString(deterministic=True)
        numbers = self.fake.open if group.open_algorithm else [group.algorithm]
        keys = [(number, self.fake.keys(number, suffix)[0]) for number in numbers]
        for number, key in keys:
            signed.signed_by.add(
                kid=_kid(key),
                algorithm=number,
                version=1,
                custody=alg.CUSTODY_CLASS_ADAPTER_MEMORY,
                policy_digest=bytes(32),
            )
        stolen = self.fake.bound.get(token, peer_key) not in {b"", peer_key}
        for item in group.items:
            if stolen:
                signed.items.append(
                    types.SignedItem(failure=FailureError(fail.REASON_HANDLE_STOLEN).to_item())
                )
            else:
                signed.items.append(self._item(group, item, keys))
        return signed

    def _item(
        self,
        group: signing_pb2.SignGroup,
        item: signing_pb2.SignItem,
        keys: list[tuple[int, Any]],
    ) -> types.SignedItem:
        fake = self.fake
        reason = fake.faults.refuse_item(group, item)
        kids = [group.expected_kid, group.second_kid][: len(keys)]
        for_a_key = group.open_algorithm or group.algorithm == alg.ALGORITHM_ML_DSA_65
        if for_a_key and kids != [_kid(key) for _, key in keys]:
            reason = fail.REASON_KEY_SUPERSEDED
        if reason:
            return types.SignedItem(failure=FailureError(reason).to_item())
        fingerprint = hashlib.sha256(
            bytes([group.algorithm])
            + group.context.SerializeToString(deterministic=True)
            + (item.message_sha256 if group.open_algorithm else item.input)
        )
        with fake.lock:
            stored = fake.ledger.get(item.intent_id)
            if stored is None:
                result = types.SignedItem(leaf_index=fake.signed)
                inputs = (item.input, item.second_input)
                for place, ((number, key), data) in enumerate(zip(keys, inputs, strict=False)):
                    result.signatures.add(value=_sign(number, key, data), key=place)
                fake.signed += 1
                stored = fake.ledger[item.intent_id] = (fingerprint.digest(), result)
        if stored[1] is None:
            return types.SignedItem(failure=FailureError(fail.REASON_INTENT_NEVER).to_item())
        if stored[0] != fingerprint.digest():
            return types.SignedItem(failure=FailureError(fail.REASON_INTENT_CONFLICT).to_item())
        return stored[1]

    def ResolveIntent(
        self, request: signing_pb2.ResolveIntentRequest, context: Any
    ) -> signing_pb2.ResolveIntentResponse:
        with self.fake.lock:
            stored = self.fake.ledger.setdefault(request.intent_id, (b"", None))
        if stored[1] is None:
            return signing_pb2.ResolveIntentResponse(never=signing_pb2.Never())
        made_under = types.SignedBy(
            kid="k" * 43,
            algorithm=alg.ALGORITHM_ED25519,
            version=1,
            custody=alg.CUSTODY_CLASS_ADAPTER_MEMORY,
        )
        done = types.SignedGroup(signed_by=[made_under], items=[stored[1]])
        return signing_pb2.ResolveIntentResponse(done=done)

    def GetPublicKeys(
        self, request: signing_pb2.GetPublicKeysRequest, context: Any
    ) -> signing_pb2.GetPublicKeysResponse:
        self.fake.faults.before_keys()
        suffix = request.context.SerializeToString(deterministic=True)
        if request.open_algorithm:
            return self._open_keys(suffix)
        keys = self.fake.told(request.algorithm, suffix)
        return signing_pb2.GetPublicKeysResponse(keys=keys, refresh_hint_s=60)

    def GetJwks(
        self, request: signing_pb2.GetJwksRequest, context: Any
    ) -> signing_pb2.GetJwksResponse:
        self.fake.faults.before_keys()
        return signing_pb2.GetJwksResponse(
            key_set=b'{"keys":[]}', etag='"of none"', max_age_s=60, sequence=1
        )

    def _open_keys(self, suffix: bytes) -> signing_pb2.GetPublicKeysResponse:
        keys = [self.fake.told(number, suffix)[0] for number in self.fake.open]
        return signing_pb2.GetPublicKeysResponse(
            keys=keys, refresh_hint_s=60, signing_kids=[key.kid for key in keys]
        )

    def VerifyTag(
        self, request: signing_pb2.VerifyTagRequest, context: Any
    ) -> signing_pb2.VerifyTagResponse:
        suffix = request.context.SerializeToString(deterministic=True)
        for key in self.fake.keys(alg.ALGORITHM_HS256, suffix):
            if hmac.compare_digest(_sign(alg.ALGORITHM_HS256, key, request.message), request.tag):
                return signing_pb2.VerifyTagResponse(
                    key=types.PublicKey(kid=_kid(key), algorithm=alg.ALGORITHM_HS256)
                )
        return abort(context, FailureError(fail.REASON_SIGNATURE_INVALID))


class _Capability(capability_pb2_grpc.CapabilityServiceServicer):
    def __init__(self, fake: FakeAdapter) -> None:
        self.fake = fake

    def IssueHandles(
        self, request: capability_pb2.IssueHandlesRequest, context: Any
    ) -> capability_pb2.IssueHandlesResponse:
        fake = self.fake
        fake.faults.before_issue()
        if fake.faults.issue:
            abort(context, FailureError(fake.faults.issue))
        if request.grants and not set(request.grants) & set(fake.grants):
            abort(context, FailureError(fail.REASON_NOT_FOUND))
        fake.issued += 1
        wanted = [
            grant
            for name, grant in fake.grants.items()
            if not request.grants or name in request.grants
        ]
        return capability_pb2.IssueHandlesResponse(
            handles=[fake.handle(grant, _peer_key(context)) for grant in wanted],
            mint_public_key=bytes(fake.mint.public_key.to_bytes()),
            revocation_epoch=1,
        )

    def RenewHandles(
        self, request: capability_pb2.RenewHandlesRequest, context: Any
    ) -> capability_pb2.RenewHandlesResponse:
        fake = self.fake
        if fake.faults.issue:
            abort(context, FailureError(fake.faults.issue))
        fake.renewed += 1
        return capability_pb2.RenewHandlesResponse(
            handles=[fake.handle(grant, _peer_key(context)) for grant in fake.grants.values()],
            revocation_epoch=1,
        )

    def Watch(
        self, request: capability_pb2.WatchRequest, context: Any
    ) -> Iterator[capability_pb2.WatchResponse]:
        identity = self.fake.identity
        first = capability_pb2.WatchResponse(revocation_epoch=1, policy_digest=bytes(32))
        first.trust_bundle_sequence = identity.sequence if identity is not None else 0
        queue: list[Any] = [first]
        self.fake.watchers.append(queue)
        try:
            while context.is_active():
                while queue:
                    told = queue.pop(0)
                    if told is None:
                        return
                    yield told
                time.sleep(0.01)
        finally:
            self.fake.watchers.remove(queue)


class _Evidence(evidence_pb2_grpc.EvidenceServiceServicer):
    def __init__(self, fake: FakeAdapter) -> None:
        self.fake = fake

    def SubmitAudit(
        self, request: evidence_pb2.SubmitAuditRequest, context: Any
    ) -> evidence_pb2.SubmitAuditResponse:
        bounds.check(request)
        reason = self.fake.faults.audit(request.batch)
        if reason:
            abort(context, FailureError(reason))
        batch = bounds.parse(evidence_pb2.AuditBatch, request.batch)
        with self.fake.lock:
            boot = self.fake.boots.get(batch.boot_id) or Boot()
            if request.batch not in boot.batches:
                expected = hashlib.sha256(boot.batches[-1]).digest() if boot.batches else b""
                following = boot.records[-1].sequence + 1 if boot.records else 1
                if batch.previous != expected or batch.records[0].sequence != following:
                    abort(context, FailureError(fail.REASON_AUDIT_OUT_OF_ORDER))
                self.fake.boots[batch.boot_id] = boot
                boot.batches.append(request.batch)
                boot.records.extend(batch.records)
                self.fake.handed.extend(batch.records)
            return evidence_pb2.SubmitAuditResponse(accepted_through=boot.records[-1].sequence)

    def GetCheckpoint(
        self, request: evidence_pb2.GetCheckpointRequest, context: Any
    ) -> evidence_pb2.GetCheckpointResponse:
        log = self.fake.log
        if log is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "this one has no log")
        size, seen = log.shows or len(log.leaves), request.consistent_with
        log.asked.append((seen, request.max_age_ms))
        proof = log.consistency(seen, size) if log.proves and 0 < seen < size else []
        return evidence_pb2.GetCheckpointResponse(
            checkpoint=log.checkpoint(size), verifier_key=log.key.text(), consistency=proof
        )

    def GetConsistencyProof(
        self, request: evidence_pb2.GetConsistencyProofRequest, context: Any
    ) -> evidence_pb2.GetConsistencyProofResponse:
        log = self.fake.log
        assert log is not None
        if request.new_size > len(log.leaves):
            abort(context, FailureError(fail.REASON_NOT_IN_LOG))
        hashes = log.consistency(request.old_size, request.new_size)
        return evidence_pb2.GetConsistencyProofResponse(hashes=hashes)


def _peer_key(context: Any) -> bytes:
    """SHA-256 of the peer's public key."""
    certificate = x509.load_pem_x509_certificate(context.auth_context()["x509_pem_cert"][0])
    return hashlib.sha256(_spki_of(certificate.public_key())).digest()


def _spki_of(key: Any) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _new_key(algorithm: int) -> Any:
    if algorithm == alg.ALGORITHM_ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == alg.ALGORITHM_ES256:
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == alg.ALGORITHM_ML_DSA_65:
        return mldsa.MLDSA65PrivateKey.generate()
    return os.urandom(32)


def _sign(algorithm: int, key: Any, data: bytes) -> bytes:
    if algorithm == alg.ALGORITHM_ED25519:
        return key.sign(data)
    if algorithm == alg.ALGORITHM_ES256:
        return key.sign(data, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    if algorithm == alg.ALGORITHM_ML_DSA_65:
        return key.sign_mu(data)
    return hmac.digest(key, data, "sha256")


def _spki(key: Any) -> bytes:
    if isinstance(key, bytes):
        return b""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form)


def _kid(key: Any) -> str:
    return hashlib.sha256(_spki(key) or b"kid" + key).hexdigest()[:43]
