"""EvidenceService: accepts the agents' audit batches, and serves entries, tiles, proofs and
checkpoints of the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

from capsign_evidence import leaf, told_calls
from capsign_evidence.drift_leaf import Drifted
from capsign_evidence.incident_leaf import IncidentLeaf
from capsign_evidence.leaf_reader import (
    Admin,
    Never,
    Proposal,
    Refused,
    Signed,
    SignedTwice,
    decode,
)
from capsign_evidence.merkle import TILE_WIDTH
from capsign_evidence.proofs import Trees
from capsign_evidence.retired_leaf import Retired
from capsign_evidence.rollout_leaf import RolloutStep, VerificationsReported
from capsign_evidence.tiles import batch_file, bundle, width_at
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.adapter.v1 import evidence_pb2_grpc
from capsign_wire.bounds import parse
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import cost
from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.budget import Budget
from capsign_adapter.decide.evidence_quota import EvidenceQuota
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import PolicyNow, Role
from capsign_adapter.front.guard import guarded
from capsign_adapter.model.evidence import AuditAccepted, AuditDraft, Checkpoint
from capsign_adapter.reconcile.refused_batches import RefusedBatches
from capsign_adapter.sign.checkpoints import Checkpoints
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.log_files import batch_page
from capsign_adapter.sign.receipts import Receipts
from capsign_adapter.store.errors import AuditOutOfOrderError, StoreUnavailableError
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.evidence import AuditBatches, EvidenceLog
from capsign_adapter.store.interfaces.ledger import Ledger
from capsign_adapter.store.interfaces.reconciliation import ReconciliationStore
from capsign_adapter.store.interfaces.summaries import Summaries

READERS = frozenset({Role.AUDITOR, Role.OPERATOR, Role.RESPONDER})
"""Roles that may read whole entries: they name workloads."""


MAX_BATCHES, MAX_BATCH_BYTES = 256, 2 * 1024 * 1024
"""Batches of one answer, and its bytes if it has more than one."""

MAX_SUMMARIES, MAX_SUMMARY_BYTES = 128, 32 * 1024
"""Summaries of one answer, and bytes of each; a usual one has two thousand."""


class PublicLog(
    ControlState, EvidenceLog, AuditBatches, ReconciliationStore, Ledger, Summaries, Protocol
):
    """The parts of the store that this service reads and writes."""


class EvidenceServicer(evidence_pb2_grpc.EvidenceServiceServicer):
    """Hashes, proofs and checkpoints are for every workload in policy, since each agent is a
    witness. Entries are for READERS.
    """

    def __init__(
        self,
        policy: PolicyNow,
        standing: Callable[[], Standing],
        store: PublicLog,
        checkpoints: Checkpoints,
        evidence: EvidenceQuota,
        budget: Budget,
    ) -> None:
        self._budget = budget
        self._policy = policy
        self._standing = standing
        self._store = store
        self._trees = Trees(store.hashes)
        self._checkpoints = checkpoints
        self._evidence = evidence
        self._receipts = Receipts(store, checkpoints)
        self._refused = RefusedBatches(store)

    @guarded
    def SubmitAudit(self, peer: Peer, request: pb.SubmitAuditRequest) -> pb.SubmitAuditResponse:
        """Durable and sequenced when this answers; the same batch sent again gives the same
        answer.
        """
        self._known(peer)
        records: list[pb.AuditRecord] = []  # each look into the field makes them anew

        def charge(parsed: pb.AuditBatch) -> None:
            many = len(parsed.records)
            if many <= told_calls.MAX_CALLS:  # more are refused, by their number
                records.extend(parsed.records)
            self._budget.charge(peer, cost.records(max(many, told_calls.count(records))))

        batch = parse(pb.AuditBatch, request.batch, charge)
        _canonical(batch, request.batch)
        _within_bounds(records)
        first, last = records[0].sequence, records[-1].sequence
        if first < 1 or [one.sequence for one in records] != [*range(first, first + len(records))]:
            raise FailureError(
                failures_pb2.REASON_INPUT_MALFORMED,
                "The records of a batch must be consecutive.",
                field="batch.records",
            )
        now = now_ms()
        batch_hash = hashlib.sha256(request.batch).digest()
        closes = records[-1].kind == pb.AUDIT_KIND_CLOSE
        digest = self._policy().digest
        entry = leaf.agent_batch(
            now, digest, peer.spiffe_id, batch.boot_id, first, last, batch_hash, closes=closes
        )
        draft = AuditDraft(
            workload=peer.spiffe_id,
            boot_id=batch.boot_id,
            previous=batch.previous,
            first_sequence=first,
            last_sequence=last,
            closes=closes,
            batch=request.batch,
            batch_hash=batch_hash,
            leaf=entry,
        )
        accepted = self._written(peer, draft, len(request.batch) + len(entry), now)
        return pb.SubmitAuditResponse(
            accepted_through=accepted.accepted_through, leaf_index=accepted.leaf_index
        )

    def _written(self, peer: Peer, draft: AuditDraft, size: int, now: int) -> AuditAccepted:
        """Store the batch and charge its bytes to the workload's evidence quota. A batch that was
        stored before, or that cannot be stored, is not charged. Raises FailureError.
        """
        self._evidence.reserve(peer, size)
        try:
            accepted = self._store.submit_audit(draft, now)
        except AuditOutOfOrderError as error:
            self._evidence.free(peer, size)
            self._refused.refused(draft, error.accepted_through, self._policy().digest, now)
            raise FailureError(
                failures_pb2.REASON_AUDIT_OUT_OF_ORDER,
                f"This boot is accepted through record {error.accepted_through}.",
            ) from None
        except StoreUnavailableError:
            self._evidence.free(peer, size)
            raise
        if accepted.duplicate:
            self._evidence.free(peer, size)
        else:
            self._evidence.wrote("reported", size)
        return accepted

    @guarded
    def GetCheckpoint(
        self, peer: Peer, request: pb.GetCheckpointRequest
    ) -> pb.GetCheckpointResponse:
        """Returns a checkpoint of the tree as it is now, or one that is recent enough, and the
        proof that it extends the tree that the caller has seen. A tree smaller than that one is
        shown without a proof: the caller holds it against us.
        """
        self._known(peer)
        seen = request.consistent_with
        latest = self._recent(seen, request.max_age_ms)
        proof: list[bytes] = []
        if 0 < seen < latest.tree_size:
            proof = self._trees.of(latest.tree_size).consistency(seen)
        return pb.GetCheckpointResponse(
            checkpoint=latest.note,
            verifier_key=self._checkpoints.verifier_key,
            verifier_keys=self._checkpoints.verifier_keys,
            consistency=proof,
        )

    def _recent(self, size: int, max_age_ms: int) -> Checkpoint:
        """Returns the last checkpoint if it is not older than that and has so many leaves, else one
        of the tree as it is now, which has fewer if the log has: agents ask by the hundred, and
        each new one is a signature in the token.
        """
        now = now_ms()
        if max_age_ms and size <= self._store.control().tree_size:
            latest = self._checkpoints.covering(size - 1, now)
            if abs(now - latest.at_ms) <= max_age_ms:
                return latest
        return self._checkpoints.current(now)

    @guarded
    def GetTile(self, peer: Peer, request: pb.GetTileRequest) -> pb.GetTileResponse:
        """Returns a full tile, or the first `width` hashes of one (C2SP tlog-tiles)."""
        self._known(peer)
        width = request.width or TILE_WIDTH
        if width_at(request.level, request.index, self._store.control().tree_size) < width:
            raise _beyond("The log does not hold this tile at that width yet.")
        found = self._store.hashes(request.level, request.index * TILE_WIDTH, width)
        return pb.GetTileResponse(tile=b"".join(found))

    @guarded
    def GetEntries(self, peer: Peer, request: pb.GetEntriesRequest) -> pb.GetEntriesResponse:
        """Returns an entry bundle, full or partial (C2SP tlog-tiles)."""
        self._reader(peer)
        width = request.width or TILE_WIDTH
        if width_at(0, request.index, self._store.control().tree_size) < width:
            raise _beyond("The log does not hold this bundle at that width yet.")
        found = self._store.entries(request.index * TILE_WIDTH, width)
        return pb.GetEntriesResponse(entries=bundle(found))

    @guarded
    def GetInclusionProof(
        self, peer: Peer, request: pb.GetInclusionProofRequest
    ) -> pb.GetInclusionProofResponse:
        """Returns the inclusion proof of a leaf in a tree (RFC 6962, section 2.1.1)."""
        self._known(peer)
        if not request.leaf_index < request.tree_size <= self._store.control().tree_size:
            raise _beyond("There is no such leaf in a tree of that size.")
        hashes = self._trees.of(request.tree_size).inclusion(request.leaf_index)
        return pb.GetInclusionProofResponse(hashes=hashes)

    @guarded
    def GetConsistencyProof(
        self, peer: Peer, request: pb.GetConsistencyProofRequest
    ) -> pb.GetConsistencyProofResponse:
        """Returns the consistency proof of two trees (RFC 6962, section 2.1.2)."""
        self._known(peer)
        if not 0 < request.old_size <= request.new_size <= self._store.control().tree_size:
            raise _beyond("There are no two such trees.")
        hashes = self._trees.of(request.new_size).consistency(request.old_size)
        return pb.GetConsistencyProofResponse(hashes=hashes)

    @guarded
    def GetReceipt(self, peer: Peer, request: pb.GetReceiptRequest) -> pb.GetReceiptResponse:
        """Returns a receipt (C2SP tlog-proof) of a leaf, or of what became of an intent: to the
        workload that the entry names and to READERS.
        """
        if request.workload not in {"", peer.spiffe_id}:
            self._reader(peer)
        if request.intent_id:
            owner = request.workload or peer.spiffe_id
            found = self._receipts.of_intent(
                owner, request.intent_id, request.leaf_index, request.caller
            )
        else:
            found = self._receipts.at(request.leaf_index)
        if _workload_of(found.entry) != peer.spiffe_id:
            self._reader(peer)
        return pb.GetReceiptResponse(
            receipt=self._receipts.prove(found, now_ms()),
            entry=found.entry,
            verifier_key=self._checkpoints.verifier_key,
        )

    @guarded
    def GetBatches(self, peer: Peer, request: pb.GetBatchesRequest) -> pb.GetBatchesResponse:
        """Returns the agents' batches among these leaves, as many as fit into an answer."""
        self._reader(peer)
        end = min(request.end_leaf, self._store.control().tree_size)
        taken, after = batch_page(
            self._store, request.first_leaf, end, MAX_BATCHES, MAX_BATCH_BYTES
        )
        return pb.GetBatchesResponse(
            batches=batch_file(taken), next_leaf=after if after < end else request.end_leaf
        )

    @guarded
    def GetSummaries(self, peer: Peer, request: pb.GetSummariesRequest) -> pb.GetSummariesResponse:
        """Returns the summaries of tiles from this one on, as many as fit into an answer."""
        self._reader(peer)
        found = self._store.summaries(request.first_tile, MAX_SUMMARIES, MAX_SUMMARY_BYTES)
        return pb.GetSummariesResponse(
            summaries=[pb.TileSummary(tile=tile, summary=data) for tile, data in found],
            next_tile=found[-1][0] + 1 if len(found) == MAX_SUMMARIES else 0,
        )

    def _known(self, peer: Peer) -> None:
        policy = self._policy()
        if not policy.grants_of(peer.spiffe_id) and not policy.roles_of(peer.spiffe_id):
            raise FailureError(
                failures_pb2.REASON_IDENTITY_UNKNOWN, "The policy does not name this identity."
            )

    def _reader(self, peer: Peer) -> None:
        if not self._standing().roles_of(peer.spiffe_id) & READERS:
            raise FailureError(
                failures_pb2.REASON_ROLE_MISSING,
                "Entries are for auditors, responders and operators.",
            )


def _workload_of(entry: bytes) -> str:
    decoded = decode(entry)
    if isinstance(decoded, Signed | SignedTwice | Refused | Never):
        return decoded.group.workload
    of_people = Admin | Proposal | RolloutStep | VerificationsReported | Drifted | IncidentLeaf
    return "" if isinstance(decoded, of_people | Retired) else decoded.workload


def _canonical(batch: pb.AuditBatch, wire: bytes) -> None:
    """Raises FailureError INPUT_MALFORMED unless the bytes are the canonical form of the batch.
    They are kept for ever, so they must not hide anything in unknown fields or in another encoding
    of known ones (I9). Unknown fields are dropped from `batch`.
    """
    batch.DiscardUnknownFields()
    if batch.SerializeToString(deterministic=True) != wire:
        raise FailureError(
            failures_pb2.REASON_INPUT_MALFORMED,
            "The batch is not in canonical form, or has unknown fields.",
            field="batch",
        )


def _within_bounds(records: Sequence[pb.AuditRecord]) -> None:
    """Raises FailureError INPUT_MALFORMED or INPUT_TOO_LARGE unless what records say of further
    calls can be read, and they tell of no more than MAX_CALLS.
    """
    if not told_calls.sound(records):
        raise FailureError(
            failures_pb2.REASON_INPUT_MALFORMED,
            "Further intents are 16 bytes each, and in records about calls that name an intent.",
            field="batch.records.more_intents",
        )
    if (calls := told_calls.count(records)) > told_calls.MAX_CALLS:
        raise FailureError(
            failures_pb2.REASON_INPUT_TOO_LARGE,
            f"The batch tells of {calls} calls; at most {told_calls.MAX_CALLS} are taken.",
            field="batch.records",
        )


def _beyond(text: str) -> FailureError:
    return FailureError(failures_pb2.REASON_NOT_IN_LOG, text)
