"""What an application may ask besides signing: public keys, whether a signature verifies, what
became of an intent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from capsign_wire import intents
from capsign_wire.adapter.v1 import evidence_pb2, signing_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.key_states import VERIFIES
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.handles.finder import HandleFinder
from capsign_agent.handles.scope import HandleScope
from capsign_agent.handles.socket_handles import SocketHandles
from capsign_agent.journal import records
from capsign_agent.journal.journal import Journal
from capsign_agent.sign import hashing
from capsign_agent.sign.answer_check import is_signed, longest_by_key
from capsign_agent.sign.key_sets import KeySets
from capsign_agent.sign.lookup_limit import (
    JWKS_US,
    KEYS_US,
    RECEIPT_US,
    RESOLVE_US,
    TAG_US,
    LookupLimit,
)
from capsign_agent.sign.public_keys import Known, PublicKeys
from capsign_agent.timing import Timing

T = TypeVar("T")

_TO_TRY = VERIFIES | {types_pb2.KEY_STATE_PRE_ACTIVATION}
"""States of keys that a signature is held against."""


class Adapter(Protocol):
    """The unary calls that go to the adapter. Each raises FailureError."""

    def resolve(
        self, request: signing_pb2.ResolveIntentRequest, timeout_s: float
    ) -> Awaitable[signing_pb2.ResolveIntentResponse]: ...

    def verify_tag(
        self, request: signing_pb2.VerifyTagRequest, timeout_s: float
    ) -> Awaitable[signing_pb2.VerifyTagResponse]: ...

    def receipt(
        self, request: evidence_pb2.GetReceiptRequest, timeout_s: float
    ) -> Awaitable[evidence_pb2.GetReceiptResponse]: ...


class Lookups:
    """Answers them for all sockets. Each method raises FailureError."""

    def __init__(
        self,
        adapter: Adapter,
        keys: PublicKeys,
        sets: KeySets,
        journal: Journal,
        finder: HandleFinder,
        limit: LookupLimit,
        timing: Timing,
    ) -> None:
        self._limit = limit
        self._finder = finder
        self._adapter = adapter
        self._keys = keys
        self._sets = sets
        self._journal = journal
        self._fresh_s = timing.keys_fresh_s

    async def public_keys(
        self, socket: SocketHandles, request: agent_pb2.GetPublicKeysRequest, timeout_s: float
    ) -> agent_pb2.GetPublicKeysResponse:
        """The public keys of a context, and for how long they may be cached."""
        scope = await self._scope(socket, request, timeout_s)
        known = await self._known(scope, timeout_s)
        left = max(1, int(known.expires - time.monotonic()))
        return agent_pb2.GetPublicKeysResponse(
            keys=known.response.keys, refresh_hint_s=min(left, known.response.refresh_hint_s)
        )

    async def jwks(
        self, socket: SocketHandles, request: agent_pb2.GetJwksRequest, timeout_s: float
    ) -> agent_pb2.GetJwksResponse:
        """The public keys of a context as a JWK Set, as the adapter's listener for verifiers has
        it, and for how long it may still be kept.
        """
        held = await self._finder.wait_for(socket, request.handle_id, timeout_s)
        suffix = held.rule.context(request.context)
        whole = suffix.SerializeToString(deterministic=True)
        scope = HandleScope(held, algorithms_pb2.ALGORITHM_UNSPECIFIED, suffix, whole)
        if self._sets.cached(scope) is None:
            await self._limit.ask_adapter(socket.name, JWKS_US)
        known = await _within(self._sets.get(scope), timeout_s)
        told = known.response
        return agent_pb2.GetJwksResponse(
            key_set=told.key_set,
            etag=told.etag,
            max_age_s=max(0, int(known.expires - time.monotonic())),
            sequence=told.sequence,
        )

    async def verify(
        self, socket: SocketHandles, request: agent_pb2.VerifyRequest, timeout_s: float
    ) -> agent_pb2.VerifyResponse:
        """The key under which the signature verifies. Raises SIGNATURE_INVALID if it verifies under
        none.
        """
        scope = await self._scope(socket, request, timeout_s)
        row = ALGORITHMS[request.algorithm]
        kind = request.WhichOneof("input")
        if kind is None:
            raise FailureError(
                failures_pb2.REASON_INPUT_MALFORMED,
                "There is neither message nor digest.",
                field="input",
            )
        if kind == "digest":
            hashing.check_digest(row, request.digest)
        if request.algorithm == algorithms_pb2.ALGORITHM_HS256:
            tag = signing_pb2.VerifyTagRequest(
                handle=scope.held.token,
                context=scope.suffix,
                message=request.message,
                tag=request.signature,
            )
            await self._limit.ask_adapter(socket.name, TAG_US)
            return agent_pb2.VerifyResponse(
                key=(await self._adapter.verify_tag(tag, timeout_s)).key
            )
        known = await self._known(scope, timeout_s)
        key = _verifying(known, request)
        if _is_outdated(known, key, time.monotonic() - self._fresh_s):
            known = await _within(self._keys.get(scope, newer_than=known.fetched), timeout_s)
            key = _verifying(known, request)
        if key is None or key.state not in VERIFIES:
            raise FailureError(
                failures_pb2.REASON_SIGNATURE_INVALID,
                "No key of this context verifies it.",
                field="signature",
            )
        return agent_pb2.VerifyResponse(key=key)

    async def report(
        self,
        socket: SocketHandles,
        request: agent_pb2.ReportVerificationsRequest,
        timeout_s: float,
    ) -> agent_pb2.ReportVerificationsResponse:
        """Note in the journal how signatures of a key verified. Raises NOT_FOUND if the context has
        no such key, JOURNAL_FULL.
        """
        scope = await self._scope(socket, request, timeout_s)
        known = await self._known(scope, timeout_s)
        key = next((key for key in known.response.keys if key.kid == request.kid), None)
        if key is None:
            raise FailureError(
                failures_pb2.REASON_NOT_FOUND, "This context has no such key.", field="kid"
            )
        piece = records.verifications(
            scope.held.grant, request.algorithm, key.version, request.verified, request.failed
        )
        # As refusals: without end at one socket, reports keep no other from signing.
        self._journal.refuse(piece, socket.name)
        return agent_pb2.ReportVerificationsResponse()

    async def resolve(
        self, socket: SocketHandles, request: agent_pb2.ResolveIntentRequest, timeout_s: float
    ) -> agent_pb2.ResolveIntentResponse:
        """What became of an intent. It is written to the journal before it is returned."""
        held = await self._finder.wait_for(socket, request.handle_id, timeout_s)
        intents.millis_of(request.intent_id)
        self._journal.promise(1, socket.name)
        try:
            upstream = signing_pb2.ResolveIntentRequest(
                handle=held.token, intent_id=request.intent_id, caller=socket.name
            )
            await self._limit.ask_adapter(socket.name, RESOLVE_US)
            told = await self._adapter.resolve(upstream, timeout_s)
            answer, piece = _resolved(told, request.intent_id, held.grant, socket.name)
            self._journal.append(piece, socket=socket.name)
        finally:
            self._journal.forget(2, socket.name)
        return answer

    async def receipt(
        self, socket: SocketHandles, request: agent_pb2.GetReceiptRequest, timeout_s: float
    ) -> agent_pb2.GetReceiptResponse:
        """The receipt of an intent of this socket: the entry names the socket, so the adapter knows
        it, also after a restart of the agent. Nothing is recorded, and nothing of it is believed
        here.
        """
        intents.millis_of(request.intent_id)
        upstream = evidence_pb2.GetReceiptRequest(
            intent_id=request.intent_id, leaf_index=request.leaf_index, caller=socket.name
        )
        await self._limit.ask_adapter(socket.name, RECEIPT_US)
        told = await self._adapter.receipt(upstream, timeout_s)
        return agent_pb2.GetReceiptResponse(
            receipt=told.receipt, entry=told.entry, verifier_key=told.verifier_key
        )

    async def _known(self, scope: HandleScope, timeout_s: float) -> Known:
        if self._keys.cached(scope) is None:
            await self._limit.ask_adapter(scope.held.socket, KEYS_US)
        return await _within(self._keys.get(scope), timeout_s)

    async def _scope(
        self,
        socket: SocketHandles,
        request: agent_pb2.GetPublicKeysRequest
        | agent_pb2.VerifyRequest
        | agent_pb2.ReportVerificationsRequest,
        timeout_s: float,
    ) -> HandleScope:
        held = await self._finder.wait_for(socket, request.handle_id, timeout_s)
        suffix = held.rule.decide("", request.algorithm, request.context)
        return HandleScope(
            held, request.algorithm, suffix, suffix.SerializeToString(deterministic=True)
        )


def _resolved(
    told: signing_pb2.ResolveIntentResponse, intent_id: bytes, grant: str, caller: str
) -> tuple[agent_pb2.ResolveIntentResponse, records.Piece]:
    """The answer to the application, and its record. Raises FailureError INTERNAL if the adapter's
    answer is empty.
    """
    kind = told.WhichOneof("resolution")
    piece = records.Piece()
    unspecified = algorithms_pb2.ALGORITHM_UNSPECIFIED
    if kind == "done":
        done = told.done
        longest = longest_by_key(done.signed_by)
        if len(done.items) != 1 or not is_signed(done.items[0], longest):
            detail = "The adapter says done and gives no signature."
            raise FailureError(failures_pb2.REASON_INTERNAL, detail)
        records.done(piece, [intent_id], done.items[0].leaf_index, grant, unspecified, caller)
        return agent_pb2.ResolveIntentResponse(done=done), piece
    if kind not in {"refused", "never"}:
        raise FailureError(failures_pb2.REASON_INTERNAL, "The adapter's answer is empty.")
    never = kind == "never"
    reason = (
        failures_pb2.REASON_INTENT_NEVER if never else FailureError.from_item(told.refused).reason
    )
    records.failed(
        piece, [intent_id], grant, unspecified, caller, failures_pb2.OUTCOME_REFUSED, reason
    )
    answer = agent_pb2.ResolveIntentResponse(
        never=agent_pb2.Never() if never else None, refused=None if never else told.refused
    )
    return answer, piece


def _is_outdated(known: Known, key: types_pb2.PublicKey | None, since: float) -> bool:
    """Whether the keys are to be fetched anew, given the one of them under which a signature
    verifies.

    Under none it does: they are, if they were fetched before `since`. Under one that does not sign
    yet: it does by now, for whoever made the signature has it.
    """
    if key is None:
        return known.fetched <= since
    return key.state == types_pb2.KEY_STATE_PRE_ACTIVATION


def _verifying(known: Known, request: agent_pb2.VerifyRequest) -> types_pb2.PublicKey | None:
    from capsign_agent.sign import (
        verify,  # brings `cryptography`: only an agent that verifies pays for it
    )

    digest = request.digest if request.HasField("digest") else None
    signed = verify.Signed(request.message, digest, request.signature)
    for key in known.response.keys:
        if key.state not in _TO_TRY:
            continue
        if verify.verifies(request.algorithm, key.spki, signed):
            return key
    return None


async def _within(work: Awaitable[T], timeout_s: float) -> T:
    try:
        return await asyncio.wait_for(work, timeout_s)
    except TimeoutError:
        raise FailureError(
            failures_pb2.REASON_UPSTREAM_UNREACHABLE, "The adapter did not answer in time."
        ) from None
