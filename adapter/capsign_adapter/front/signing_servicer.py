"""SigningService: the stream of batches, intents that are resolved, public keys, and HMAC tags that
are verified.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.adapter.v1 import signing_pb2_grpc
from capsign_wire.bounds import Unparsed
from capsign_wire.failures import FailureError
from capsign_wire.key_states import VERIFIES
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

from capsign_adapter.decide.peer import Peer
from capsign_adapter.front.batch_telemetry import BatchTelemetry
from capsign_adapter.front.guard import answered, guarded
from capsign_adapter.front.peer_quota import PeerQuota
from capsign_adapter.front.streams import Streams
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.failures import failure_of
from capsign_adapter.sign.pipeline import EPOCH_ATTEMPTS, Pipeline
from capsign_adapter.sign.public_keys import PublicKeys
from capsign_adapter.sign.resolve import Resolutions
from capsign_adapter.sign.revocation_barrier import ReleaseTicket, RevocationBarrier
from capsign_adapter.sign.snapshot import Snapshot, Snapshots

Response = TypeVar("Response")


class SigningServicer(signing_pb2_grpc.SigningServiceServicer):
    """Counts, identifies and answers; `sign.pipeline` does the work."""

    def __init__(
        self,
        pipeline: Pipeline,
        resolutions: Resolutions,
        keys: PublicKeys,
        streams: Streams,
        watch: BatchTelemetry,
        quota: PeerQuota,
        snapshots: Snapshots,
        barrier: RevocationBarrier,
    ) -> None:
        self._snapshots = snapshots
        self._barrier = barrier
        self._watch = watch
        self._quota = quota
        self._pipeline = pipeline
        self._resolutions = resolutions
        self._keys = keys
        self._streams = streams

    def Sign(
        self, requests: Iterator[pb.SignRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.SignResponse]:
        """Answers each batch in order, until the caller leaves or the process drains."""
        return self._quota.taken(self._answers(requests, context), context)

    def _answers(
        self, requests: Iterator[pb.SignRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.SignResponse]:
        with self._quota.stream(context) as peer, self._streams.joined(context):  # 1
            ticket = self._barrier.ticket(context.cancel)
            for request in self._quota.each(requests, context):
                if isinstance(request, Unparsed):
                    yield pb.SignResponse(
                        batch_id=request.number, failure=request.failure().to_item()
                    )
                    continue
                if not self._streams.begin(context):
                    draining = FailureError(
                        failures_pb2.REASON_DRAINING, "This adapter is stopping."
                    )
                    yield pb.SignResponse(batch_id=request.batch_id, failure=draining.to_item())
                    return
                try:
                    started = time.perf_counter()
                    answer = self._answer(peer, request, ticket)
                    took_s = time.perf_counter() - started
                    try:
                        # gRPC comes back for the next answer, or lets go of this generator, when
                        # this one is sent or never will be.
                        yield answer  # 8
                    finally:
                        self._watch.seen(request, answer, took_s)
                finally:
                    ticket.leave()
                    self._streams.end(context)

    def _answer(
        self, peer: Peer, request: pb.SignRequest, ticket: ReleaseTicket
    ) -> pb.SignResponse:
        with self._watch.span(request) as span:
            try:
                peer.still_valid(now_ms())
                answer = self._pipeline.run(peer, request, ticket)
                _authorize_release(ticket)  # 8: not if something was revoked meanwhile
            # the edge: a batch that fails as a whole must not end the stream for its neighbours
            except Exception as error:
                answer = pb.SignResponse(
                    batch_id=request.batch_id, failure=failure_of(error).to_item()
                )
            if span.recording:
                self._watch.note(span, request, answer)
        return answer

    def ResolveIntent(
        self, request: pb.ResolveIntentRequest, context: grpc.ServicerContext
    ) -> pb.ResolveIntentResponse:
        """Returns the stored outcome, or *never* with a tombstone that is durable by then. A stored
        signature is released under the same conditions as a new one.
        """
        return self._passing(
            request, context, lambda peer, snapshot: self._resolutions.of(peer, request, snapshot)
        )

    def GetPublicKeys(
        self, request: pb.GetPublicKeysRequest, context: grpc.ServicerContext
    ) -> pb.GetPublicKeysResponse:
        """Returns every version that verifiers should know, also one that is published and does not
        sign yet. The attestations are signatures too, so they are released under the same
        conditions.
        """
        return self._passing(request, context, lambda peer, _: self._public_keys(peer, request))

    @guarded
    def GetJwks(self, peer: Peer, request: pb.GetJwksRequest) -> pb.GetJwksResponse:
        """Returns the set that the listener for verifiers serves. There is no attestation in it,
        and so nothing that a revocation would have to stop on its way out.
        """
        found = self._keys.jwks(peer, request)
        return pb.GetJwksResponse(
            key_set=found.body, etag=found.etag, max_age_s=found.kept_s, sequence=found.sequence
        )

    def _passing(
        self,
        request: Any,
        context: grpc.ServicerContext,
        work: Callable[[Peer, Snapshot], Response],
    ) -> Response:
        """Run a unary call whose answer must not be released once its handle was revoked. `work`
        gets the peer and the current snapshot.
        """
        ticket = self._barrier.ticket(context.cancel)
        if not context.add_callback(ticket.close):
            ticket.close()  # the call is over before it began

        def passed(peer: Peer) -> Response:
            try:
                answer = work(peer, self._entered(ticket))
                _authorize_release(ticket)
            except BaseException:
                ticket.leave()
                raise
            return answer

        return answered(request, context, passed)

    def _entered(self, ticket: ReleaseTicket) -> Snapshot:
        """Enter the ticket. Returns a snapshot that was still the current one afterwards. Raises
        FailureError OVERLOADED.
        """
        for _ in range(EPOCH_ATTEMPTS):
            snapshot = self._snapshots.current
            if ticket.enter(snapshot.epoch) and self._snapshots.refresh() is snapshot:
                return snapshot
            ticket.leave()
        raise FailureError(
            failures_pb2.REASON_OVERLOADED,
            "Revocations came faster than this call.",
            retry_after_ms=100,
        )

    def _public_keys(
        self, peer: Peer, request: pb.GetPublicKeysRequest
    ) -> pb.GetPublicKeysResponse:
        return self._keys.fetched(peer, request)

    @guarded
    def VerifyTag(self, peer: Peer, request: pb.VerifyTagRequest) -> pb.VerifyTagResponse:
        """Computes the tag under each version whose signatures count, and compares in constant
        time.
        """
        hs256 = algorithms_pb2.ALGORITHM_HS256
        for key, signer in self._keys.of(peer, request.handle, hs256, request.context):
            if key.state not in VERIFIES:
                continue
            if hmac.compare_digest(signer.sign(request.message), request.tag):
                return pb.VerifyTagResponse(key=key)
        raise FailureError(
            failures_pb2.REASON_SIGNATURE_INVALID, "The tag does not verify.", field="tag"
        )


def _authorize_release(ticket: ReleaseTicket) -> None:
    """Raises FailureError COMMIT_UNKNOWN if the answer must not be released any more."""
    if not ticket.authorize_release():
        detail = (
            "This was on its way out too long, or something was revoked meanwhile. Ask again "
            "under a good handle."
        )
        raise FailureError(failures_pb2.REASON_COMMIT_UNKNOWN, detail)
