"""An agent that behaves: real gRPC on a Unix socket, real signatures, an idempotent ledger, and
faults that a test plans.

The ledger outlives `restart()`, as the adapter's outlives an agent. Handle ids do not.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
from capsign_wire import unix_socket
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.agent.v1 import agent_pb2_grpc as rpc
from capsign_wire.bounds import check
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2 as types
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

NEVER = object()


class Broken(Exception):  # noqa: N818  # what happened, not an error of the fake
    """The connection breaks here."""


class Fault:
    """What happens to the next messages that carry signatures. `count` of them, then no more.

    `before`: the stream (or call) breaks before anything is signed. `after`: it breaks when all is
    signed and in the ledger. `hold`: the answer waits for `release`. `shape`: the answer lacks an
    item. `failure`: the whole message is refused.
    """

    def __init__(self, kind: str, count: int = 1, failure: FailureError | None = None) -> None:
        self.kind = kind
        self.count = count
        self.failure = failure
        self.reached = threading.Event()
        self.release = threading.Event()


class FakeAgent(rpc.SigningServiceServicer):
    """One socket with handles `web-jwt` (jwt: ES256, Ed25519) and `web-mail` (mail: Ed25519)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.target = unix_socket.target(path)
        self.messages: list[pb.SignStreamRequest] = []
        self.unary_calls = 0
        self.second_version = 0
        """Another version of the key that signs too; 0: none."""
        self.listings = 0
        self.metadata: list[dict[str, str]] = []
        self.ledger: dict[bytes, Any] = {}
        self.receipts: dict[bytes, pb.GetReceiptResponse] = {}
        self.status = pb.GetStatusResponse()
        self.unwitnessed = 0
        """How often a receipt is not there yet."""
        self.receipts_asked: list[pb.GetReceiptRequest] = []
        self.reports: list[pb.ReportVerificationsRequest] = []
        self.reported = threading.Event()
        self.key_set, self.sequence = b'{"keys":[]}', 7
        self.signed = Counter[bytes]()
        self.refusals: dict[bytes, deque[FailureError]] = {}
        self.faults: deque[Fault] = deque()
        self.grants = [
            ("web-jwt", "jwt", [alg.ALGORITHM_ES256, alg.ALGORITHM_ED25519]),
            ("web-mail", "mail", [alg.ALGORITHM_ED25519]),
        ]
        self.lives: dict[str, timedelta] = {}
        """How long handles go on from now, by grant; those of others never end."""
        self.key_version = 1
        self._life = 0
        self.impossible_lists = 0
        """So many lists to come name a moment that is none: no client can read them."""
        self.before_list: Callable[[grpc.ServicerContext], object] = lambda _: None
        self.after_list: Callable[[], object] = lambda: None
        """Called before a list is made, and when it is made and not sent yet."""
        self.resolve_refused: FailureError | None = None
        self._lock = threading.Lock()
        self._p256 = ec.generate_private_key(ec.SECP256R1())
        self._ed25519 = ed25519.Ed25519PrivateKey.generate()
        self._server: grpc.Server | None = None

    def start(self) -> FakeAgent:
        self.new_life()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=80))
        rpc.add_SigningServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.target)
        self._server.start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            for fault in self.faults:
                fault.release.set()
            self._server.stop(grace=None).wait(5)
            self._server = None

    def new_life(self) -> None:
        """Other ids from now on, as after a restart."""
        self._life += 1

    def restart(self) -> None:
        self.stop()
        self.start()

    def plan(self, kind: str, count: int = 1, failure: FailureError | None = None) -> Fault:
        fault = Fault(kind, count, failure)
        self.faults.append(fault)
        return fault

    def refuse(self, data: bytes, *failures: FailureError) -> None:
        """The next attempts to sign this message fail like this, one after the other."""
        self.refusals[data] = deque(failures)

    # What the service does.

    def ListHandles(self, request, context):
        self.before_list(context)
        self.listings += 1
        rule = types.ContextRule(
            protocols=[types.ProtocolRule(protocol="web", roles=["issuer"], versions=["1"])]
        )
        response = pb.ListHandlesResponse(
            handles=[
                pb.KeyHandle(
                    id=self._handle_id(grant),
                    grant=grant,
                    purpose=purpose,
                    algorithms=algorithms,
                    context_rule=rule,
                )
                for grant, purpose, algorithms in self.grants
            ]
        )
        for handle in response.handles:
            if handle.grant in self.lives:
                handle.expires_at.FromDatetime(datetime.now(UTC) + self.lives[handle.grant])
        if self.impossible_lists:
            self.impossible_lists -= 1
            response.handles[0].expires_at.seconds = 1 << 62
        self.after_list()
        return response

    def Sign(self, request, context):
        self.unary_calls += 1
        self.metadata.append(dict(context.invocation_metadata()))
        group = pb.SignGroup(
            handle_id=request.handle_id,
            purpose=request.purpose,
            algorithm=request.algorithm,
            open_algorithm=request.open_algorithm,
            items=[request.item],
        )
        if request.HasField("context"):
            group.context.CopyFrom(request.context)
        (done,) = self._unary([group], context)
        if done.items[0].HasField("failure"):
            abort(context, FailureError.from_item(done.items[0].failure))
        return pb.SignResponse(signed=done)

    def SignBatch(self, request, context):
        self.unary_calls += 1
        try:
            check(request)
        except FailureError as error:
            abort(context, error)
        return pb.SignBatchResponse(groups=self._unary(request.groups, context))

    def SignStream(self, request_iterator, context):
        answers: SimpleQueue = SimpleQueue()

        def answer(request):
            try:
                check(request)
                groups = self._faulty(request.groups)
                answers.put(pb.SignStreamResponse(call_id=request.call_id, groups=groups))
            except FailureError as error:
                answers.put(pb.SignStreamResponse(call_id=request.call_id, failure=error.to_item()))
            except Broken:
                answers.put(Broken)

        def read():
            held = []
            with contextlib.suppress(grpc.RpcError, Exception):
                for request in request_iterator:
                    self.messages.append(request)
                    if self.faults and self.faults[0].kind == "hold":
                        held.append(threading.Thread(target=answer, args=(request,), daemon=True))
                        held[-1].start()
                    else:
                        answer(request)
            for thread in held:
                thread.join(10)
            answers.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (response := answers.get()) is not None:
            if response is Broken:
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            yield response

    def Verify(self, request, context):
        data = request.message if request.HasField("message") else request.digest
        try:
            self._handle(request.handle_id)
            self._verify(request, data)
        except InvalidSignature:
            abort(
                context,
                FailureError(
                    reasons.REASON_SIGNATURE_INVALID, "It does not verify under any version."
                ),
            )
        except FailureError as error:
            abort(context, error)
        return pb.VerifyResponse(key=self._public_key(request.algorithm))

    def GetPublicKeys(self, request, context):
        try:
            self._handle(request.handle_id)
        except FailureError as error:
            abort(context, error)
        return pb.GetPublicKeysResponse(
            keys=[self._public_key(request.algorithm)], refresh_hint_s=60
        )

    def GetJwks(self, request, context):
        try:
            self._handle(request.handle_id)
        except FailureError as error:
            abort(context, error)
        return pb.GetJwksResponse(
            key_set=self.key_set, etag='"an etag"', max_age_s=60, sequence=self.sequence
        )

    def GetReceipt(self, request, context):
        self.receipts_asked.append(request)
        if self.unwitnessed:
            self.unwitnessed -= 1
            refusal = FailureError(reasons.REASON_NOT_WITNESSED, "Not yet.", retry_after_ms=1)
            abort(context, refusal)
        found = self.receipts.get(request.intent_id)
        if found is None:
            abort(context, FailureError(reasons.REASON_NOT_IN_LOG, "There is no such intent."))
        return found

    def GetStatus(self, request, context):
        return self.status

    def ReportVerifications(self, request, context):
        self.reports.append(request)
        self.reported.set()
        return pb.ReportVerificationsResponse()

    def ResolveIntent(self, request, context):
        if self.resolve_refused is not None:
            abort(context, self.resolve_refused)
        try:
            self._handle(request.handle_id)
        except FailureError as error:
            abort(context, error)
        with self._lock:
            row = self.ledger.setdefault(request.intent_id, NEVER)
        if row is NEVER:
            return pb.ResolveIntentResponse(never=pb.Never())
        if isinstance(row, FailureError):
            return pb.ResolveIntentResponse(refused=row.to_item())
        signature, index, signed_by = row
        done = types.SignedGroup(signed_by=[signed_by])
        done.items.add(leaf_index=index).signatures.add(value=signature)
        return pb.ResolveIntentResponse(done=done)

    # How it does it.

    def _unary(self, groups, context):
        try:
            return self._faulty(groups)
        except Broken:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        except FailureError as error:
            abort(context, error)

    def _faulty(self, groups):
        with self._lock:
            fault = self.faults[0] if self.faults else None
            if fault is not None:
                fault.count -= 1
                if fault.count <= 0:
                    self.faults.popleft()
        if fault is None:
            return [self._sign_group(group) for group in groups]
        if fault.kind == "before":
            fault.reached.set()
            raise Broken
        if fault.kind == "failure":
            fault.reached.set()
            raise fault.failure
        done = [self._sign_group(group) for group in groups]
        fault.reached.set()
        if fault.kind == "after":
            raise Broken
        if fault.kind == "hold":
            fault.release.wait(30)
        if fault.kind == "shape":
            del done[0].items[-1]
        if fault.kind == "empty":
            done[0].items[0].Clear()
        return done

    def _handle_id(self, grant: str) -> str:
        return f"{grant}-{self._life}"

    def _handle(self, handle_id: str):
        for grant in self.grants:
            if self._handle_id(grant[0]) == handle_id:
                return grant
        raise FailureError(reasons.REASON_HANDLE_UNKNOWN, "No handle of this socket has that id.")

    def _sign_group(self, group):
        result = types.SignedGroup()
        try:
            _, purpose, algorithms = self._handle(group.handle_id)
            if group.purpose not in {"", purpose}:
                raise FailureError(
                    reasons.REASON_PURPOSE_NOT_ALLOWED, "The handle has another purpose."
                )
            algorithm = algorithms[0] if group.open_algorithm else group.algorithm
            if algorithm not in algorithms:
                raise FailureError(
                    reasons.REASON_ALGORITHM_NOT_ALLOWED, "The handle does not list it."
                )
        except FailureError as error:
            for _ in group.items:
                result.items.add(failure=error.to_item())
            return result
        result.signed_by.append(self._signed_by(algorithm))
        for item in group.items:
            try:
                signature, index, signed_by = self._sign_once(algorithm, item)
                if signed_by not in result.signed_by:
                    result.signed_by.append(signed_by)
                signed = result.items.add(leaf_index=index).signatures
                signed.add(value=signature, key=list(result.signed_by).index(signed_by))
                if self.second_version:
                    second = result.signed_by.add()
                    second.CopyFrom(signed_by)
                    second.version = self.second_version
                    signed.add(value=b"2nd", key=len(result.signed_by) - 1)
            except FailureError as error:
                result.items.add(failure=error.to_item())
        return result

    def _sign_once(self, algorithm, item):
        data = item.message if item.HasField("message") else item.digest
        with self._lock:
            row = self.ledger.get(item.intent_id)
            if row is NEVER:
                raise FailureError(reasons.REASON_INTENT_NEVER, "It was resolved.")
            if isinstance(row, FailureError):
                raise row
            if row is not None:
                return row
            if self.refusals.get(data):
                failure = self.refusals[data].popleft()
                if (
                    failure.outcome == reasons.OUTCOME_REFUSED
                    and failure.reason != reasons.REASON_HANDLE_UNKNOWN
                ):
                    self.ledger[item.intent_id] = failure
                raise failure
            self.signed[item.intent_id] += 1
            row = (
                self._signature(algorithm, item, data),
                len(self.signed) - 1,
                self._signed_by(algorithm),
            )
            self.ledger[item.intent_id] = row
            return row

    def _signature(self, algorithm, item, data):
        if algorithm == alg.ALGORITHM_ED25519:
            return self._ed25519.sign(data)
        digest = hashlib.sha256(data).digest() if item.HasField("message") else data
        return self._p256.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))

    def _verify(self, request, data):
        if request.algorithm == alg.ALGORITHM_ED25519:
            self._ed25519.public_key().verify(request.signature, data)
        else:
            digest = hashlib.sha256(data).digest() if request.HasField("message") else data
            self._p256.public_key().verify(
                request.signature, digest, ec.ECDSA(Prehashed(hashes.SHA256()))
            )

    def _private(self, algorithm):
        return self._ed25519 if algorithm == alg.ALGORITHM_ED25519 else self._p256

    def _spki(self, algorithm) -> bytes:
        public = self._private(algorithm).public_key()
        return public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def _kid(self, algorithm) -> str:
        return hashlib.sha256(self._spki(algorithm)).hexdigest()[:43]

    def _signed_by(self, algorithm):
        return types.SignedBy(
            kid=self._kid(algorithm),
            algorithm=algorithm,
            version=self.key_version,
            custody=alg.CUSTODY_CLASS_ADAPTER_MEMORY,
            policy_digest=bytes(32),
            context_digest=bytes(32),
        )

    def _public_key(self, algorithm):
        key = types.PublicKey(
            kid=self._kid(algorithm),
            algorithm=algorithm,
            spki=self._spki(algorithm),
            version=1,
            state=types.KEY_STATE_ACTIVE,
            context_digest=bytes(32),
        )
        key.activated_at.FromSeconds(1_700_000_000)
        return key
