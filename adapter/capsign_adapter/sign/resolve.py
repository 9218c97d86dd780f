"""Resolves an intent: returns its stored outcome, or writes a tombstone: it will never happen."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Protocol

from capsign_evidence.leaf_fields import LeafError
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.admission import in_force
from capsign_adapter.decide.capability import Capability
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.revoked import revoked_failure
from capsign_adapter.model.intents import Stored
from capsign_adapter.model.lifecycle import IntentState
from capsign_adapter.sign.admit import Admission, leaf_of
from capsign_adapter.sign.charge import Charges
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.intent_time import intent_in_time
from capsign_adapter.sign.receipts import asked_by
from capsign_adapter.sign.release import (
    UNREADABLE,
    signed_before,
    stored_group,
    unreadable,
    withdrawn_in,
)
from capsign_adapter.sign.snapshot import Snapshot
from capsign_adapter.store.interfaces.evidence import EvidenceLog
from capsign_adapter.store.interfaces.ledger import Ledger
from capsign_adapter.store.stored_result import refusal_of


class ResolutionStore(EvidenceLog, Ledger, Protocol):
    """The parts of the store that intents are resolved in."""


class Resolutions:
    """One for a replica; any thread."""

    def __init__(self, admission: Admission, charges: Charges, store: ResolutionStore) -> None:
        self._admission = admission
        self._charges = charges
        self._store = store

    def of(
        self, peer: Peer, request: pb.ResolveIntentRequest, snapshot: Snapshot
    ) -> pb.ResolveIntentResponse:
        """Returns done, refused or never; never is durable by then. A stored signature is released
        under the same conditions as a new one.

        Raises FailureError if the handle is not valid or the intent belongs to another grant or
        another socket of the agent, and what the store raises.
        """
        now = now_ms()
        capability = self._admission.verify(request.handle, peer, snapshot.policy, now).capability
        snapshot.revoked.refuse(capability)
        stored = self._row(peer, request, capability, snapshot, now)
        try:
            self._asked_by(request.caller, stored)
            return self._told(request.intent_id, stored, capability, snapshot, now)
        except (*UNREADABLE, LeafError) as error:
            raise unreadable(stored, error) from None

    def _asked_by(self, caller: str, stored: Stored) -> None:
        """Raises FailureError INTENT_CONFLICT if another socket of the agent sent the intent;
        LeafError.
        """
        if caller and stored.state != IntentState.NEVER:
            [entry] = self._store.entries(stored.leaf_index, 1)
            if not asked_by(entry, caller):
                raise FailureError(
                    failures_pb2.REASON_INTENT_CONFLICT,
                    "Another container of this pod sent this intent: ask there.",
                    field="intent_id",
                )

    def _told(
        self,
        intent_id: bytes,
        stored: Stored,
        capability: Capability,
        snapshot: Snapshot,
        now: int,
    ) -> pb.ResolveIntentResponse:
        """Returns what is stored. Raises FailureError, UNREADABLE."""
        if stored.state == IntentState.DONE:
            skew_ms = snapshot.policy.limits.clock_skew_ms
            try:
                in_force(capability, snapshot.policy, snapshot.revoked, now, skew_ms)
            except FailureError as error:
                raise signed_before(error) from None
            gone = withdrawn_in(stored, capability, snapshot.revoked)
            if gone is not None:
                raise signed_before(revoked_failure(gone))
            results = self._admission.results_of(capability)
            return pb.ResolveIntentResponse(done=stored_group(stored, intent_id, results))
        if stored.state == IntentState.REFUSED:
            return pb.ResolveIntentResponse(refused=refusal_of(stored.result))
        return pb.ResolveIntentResponse(never=pb.Never())

    def _row(
        self,
        peer: Peer,
        request: pb.ResolveIntentRequest,
        capability: Capability,
        snapshot: Snapshot,
        now: int,
    ) -> Stored:
        intent_id = request.intent_id
        absent = intent_id not in self._store.find(peer.spiffe_id, [intent_id])
        if absent:
            # A row will be written. With an id from the future it would outlive the retention.
            intent_in_time(intent_id, now)
        digest = snapshot.policy.digest
        shared = leaf_of(capability, peer, digest, caller=request.caller).prepare()
        leaf = shared.never(now, intent_id)
        with self._charges.never(peer) if absent else nullcontext():
            return self._store.resolve(peer.spiffe_id, intent_id, capability.grant, leaf, now)
