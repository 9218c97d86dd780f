"""SigningService: the stream of batches, and what goes with it."""

from __future__ import annotations

import hmac
from collections.abc import Iterator

import grpc
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.adapter.v1 import signing_pb2_grpc
from capsign_wire.bounds import Unparsed
from capsign_wire.failures import FailureError
from capsign_wire.intents import millis_of
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy
from capsign_adapter.front.batch_watch import BatchWatch
from capsign_adapter.front.guard import guarded
from capsign_adapter.front.places import Places
from capsign_adapter.front.streams import Streams
from capsign_adapter.sign.edge import failure_of, now_ms
from capsign_adapter.sign.group import Groups, leaf_of
from capsign_adapter.sign.pipeline import Pipeline
from capsign_adapter.sign.public_keys import PublicKeys
from capsign_adapter.store.interface import IntentState, Store

REFRESH_HINT_S = 60
"""How long a list of public keys may be kept, seconds; below every propagation window."""


class SigningServicer(signing_pb2_grpc.SigningServiceServicer):
    """Thin: the pipeline does the work."""

    def __init__(
        self,
        policy: Policy,
        pipeline: Pipeline,
        groups: Groups,
        keys: PublicKeys,
        store: Store,
        streams: Streams,
        watch: BatchWatch,
        places: Places,
    ) -> None:
        self._watch = watch
        self._places = places
        self._policy = policy
        self._pipeline = pipeline
        self._groups = groups
        self._keys = keys
        self._store = store
        self._streams = streams

    def Sign(self, requests: Iterator[pb.SignRequest], context: grpc.ServicerContext) -> Iterator[pb.SignResponse]:
        """One answer for each batch, in order, until the caller leaves or the process drains."""
        with self._places.stream(context) as peer, self._streams.joined(context):
            for request in requests:
                if isinstance(request, Unparsed):
                    yield pb.SignResponse(batch_id=request.number, failure=request.failure().to_item())
                    continue
                if not self._streams.begin(context):
                    draining = FailureError(failures_pb2.REASON_DRAINING, "This adapter is stopping.")
                    yield pb.SignResponse(batch_id=request.batch_id, failure=draining.to_item())
                    return
                try:
                    yield self._answer(peer, request)
                finally:
                    self._streams.end(context)

    def _answer(self, peer: Peer, request: pb.SignRequest) -> pb.SignResponse:
        with self._watch.batch(request) as seen:
            try:
                peer.still_valid(now_ms())
                answer = self._pipeline.run(peer, request)
            except Exception as error:  # the edge: a batch that fails as a whole must not end the stream for its neighbours
                answer = pb.SignResponse(batch_id=request.batch_id, failure=failure_of(error).to_item())
            seen(answer)
        return answer

    @guarded
    def ResolveIntent(self, peer: Peer, request: pb.ResolveIntentRequest) -> pb.ResolveIntentResponse:
        """The stored row, or a tombstone that is durable when this answers."""
        now = now_ms()
        capability = self._groups.verify(request.handle, peer, now).capability
        millis_of(request.intent_id)
        never = leaf_of(capability, peer, self._policy.digest).prepare().never(now, request.intent_id)
        stored = self._store.resolve(peer.spiffe_id, request.intent_id, capability.grant, never, now)
        if stored.state == IntentState.DONE:
            done = pb.SignedItem.FromString(stored.result)
            done.leaf_index = stored.leaf_index
            return pb.ResolveIntentResponse(done=done)
        if stored.state == IntentState.REFUSED:
            return pb.ResolveIntentResponse(refused=failures_pb2.Failure.FromString(stored.result))
        return pb.ResolveIntentResponse(never=pb.Never())

    @guarded
    def GetPublicKeys(self, peer: Peer, request: pb.GetPublicKeysRequest) -> pb.GetPublicKeysResponse:
        """Every version that verifiers should know, newest first."""
        handle = self._groups.verify(request.handle, peer, now_ms())
        keys = self._keys.of(handle, request.algorithm, request.context, now_ms())
        return pb.GetPublicKeysResponse(keys=[key for key, _ in keys], refresh_hint_s=REFRESH_HINT_S)

    @guarded
    def VerifyTag(self, peer: Peer, request: pb.VerifyTagRequest) -> pb.VerifyTagResponse:
        """Computes the tag anew under each version and compares in constant time."""
        handle = self._groups.verify(request.handle, peer, now_ms())
        for key, signer in self._keys.of(handle, algorithms_pb2.ALGORITHM_HS256, request.context, now_ms()):
            if hmac.compare_digest(signer.sign(request.message), request.tag):
                return pb.VerifyTagResponse(key=key)
        raise FailureError(failures_pb2.REASON_SIGNATURE_INVALID, "The tag does not verify.", field="tag")
