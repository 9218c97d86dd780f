"""The store on a relational engine: what each method does in its transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeVar

from capsign_evidence.merkle import leaf_hash
from capsign_evidence.packed_batch import pack
from capsign_wire.failures import FailureError

from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.evidence import AuditAccepted, AuditDraft, Checkpoint, Contradiction
from capsign_adapter.model.intents import Committed, Draft, Stored
from capsign_adapter.model.lifecycle import AuthorityEvent, PolicyEvent
from capsign_adapter.model.policies import PolicyDraft, PolicyVersionRow
from capsign_adapter.store import (
    audit,
    authorities,
    checkpoints,
    intents,
    ledger,
    log,
    policies,
    summaries,
)
from capsign_adapter.store.engine import Connection
from capsign_adapter.store.errors import (
    AuditOutOfOrderError,
    CommitUnknownError,
    EpochMovedError,
    StoreUnavailableError,
)
from capsign_adapter.store.group_commit import Batch, Errand, GroupCommit, Member
from capsign_adapter.store.interfaces.ledger import MAX_COLLECTED
from capsign_adapter.store.interfaces.policies import MAX_LISTED
from capsign_adapter.store.relational_control import RelationalControl
from capsign_adapter.store.relational_drift import RelationalDrift
from capsign_adapter.store.relational_erasures import RelationalErasures
from capsign_adapter.store.relational_evidence import RelationalEvidence
from capsign_adapter.store.relational_key_readers import RelationalKeyReaders
from capsign_adapter.store.relational_keys import RelationalKeys
from capsign_adapter.store.relational_proposals import RelationalProposals
from capsign_adapter.store.relational_reconciliation import RelationalReconciliation
from capsign_adapter.store.relational_rollouts import RelationalRollouts
from capsign_adapter.store.transaction import Head, Reader, Transaction

Result = TypeVar("Result")

_Answers = tuple[list[list[Committed] | None], list[tuple[Any, Exception | None]]]
"""Answers of each batch, and of each errand."""

MAX_CACHED_WORKLOADS = 65_536


class RelationalStore(
    RelationalControl[Connection],
    RelationalDrift[Connection],
    RelationalErasures[Connection],
    RelationalEvidence[Connection],
    RelationalKeys[Connection],
    RelationalKeyReaders[Connection],
    RelationalProposals[Connection],
    RelationalReconciliation[Connection],
    RelationalRollouts[Connection],
):
    """Implements `interfaces.whole.Store`; see there for what each method guarantees."""

    def __init__(self, dialect: str, place: str) -> None:
        super().__init__(dialect, place)
        self._workload_ids: dict[str, int] = {}
        self.group_commit = GroupCommit(self.commit_group)

    def clock_ms(self) -> int | None:
        return None

    # The ledger.

    def commit(self, epoch: int, drafts: Sequence[Draft], now_ms: int) -> list[Committed]:
        if not drafts:
            return []
        workloads = {
            workload: self.workload_id(workload)
            for workload in {draft.workload for draft in drafts}
        }
        # Hashed before the turn comes: other writers need not wait for it.
        hashes = [leaf_hash(draft.leaf) for draft in drafts]
        return self.group_commit.submit(Batch(epoch, drafts, hashes, workloads, now_ms))

    def _together(self, write: Callable[[Transaction, Head], Result], leaves: int = 1) -> Result:
        """As `write`, in one commit with other writes; see `Errand`."""
        result: Result = self.group_commit.submit(Errand(write, leaves))[0]
        return result

    def commit_group(self, group: list[Member]) -> None:
        """Commit the members in one transaction. If one of them raises an unexpected error, each is
        committed alone, so that the others are not affected.
        """
        try:
            self._commit_together(group)
        except (StoreUnavailableError, CommitUnknownError):
            raise
        except Exception:
            if len(group) == 1:
                raise
            for member in group:
                try:
                    self._commit_together([member])
                except Exception as error:
                    member.error = error

    def _commit_together(self, group: list[Member]) -> None:
        batches: list[Batch] = []
        errands: list[Errand] = []
        for member in group:
            if type(member) is Batch:  # `isinstance` asks an abstract class in Python
                batches.append(member)
            else:
                assert type(member) is Errand
                errands.append(member)

        def work(tx: Transaction, head: Head, *, careful: bool) -> _Answers:
            decided = _decide(tx, head, batches, careful=careful)
            return decided, [_run(errand, tx, head) for errand in errands]

        try:
            decided, told = self.write(lambda tx, head: work(tx, head, careful=False))
        except intents.RowExistsError:
            # Rolled back. Whatever another replica writes in between, the careful way decides on
            # what is there then.
            decided, told = self.write(lambda tx, head: work(tx, head, careful=True))
        for batch, answer in zip(batches, decided, strict=True):
            if answer is None:
                batch.error = EpochMovedError()
            else:
                batch.results = answer
        for errand, (result, refusal) in zip(errands, told, strict=True):
            if refusal is None:
                errand.results = [result]
            else:
                errand.error = refusal

    def find(self, workload: str, intent_ids: Sequence[bytes]) -> dict[bytes, Stored]:
        if not intent_ids:
            return {}
        keys = {(workload, intent_id) for intent_id in intent_ids}

        def read(tx: Reader) -> dict[ledger.IntentKey, ledger.LedgerRow]:
            number = self._workload_ids.get(workload) or _find_workload(tx, workload)
            return intents.fetch(tx, keys, {workload: number}) if number else {}

        return {intent_id: row.stored for (_, intent_id), row in self.read(read).items()}

    def resolve(
        self, workload: str, intent_id: bytes, grant: str, never_leaf: bytes, now_ms: int
    ) -> Stored:
        # As a writer even where there is a row: what another commit left unknown is confirmed by
        # this one, or not told.
        number = self.workload_id(workload)
        return self._together(
            lambda tx, head: intents.resolve(
                tx, head, workload, number, intent_id, grant, never_leaf, now_ms
            )
        )

    def collect_garbage(self, now_ms: int, retention_ms: int, limit: int = MAX_COLLECTED) -> int:
        return self.write(
            lambda tx, head: intents.collect_garbage(tx, head, now_ms, retention_ms, limit)
        )

    # Versions of the policy.

    def policy_in_force(self) -> PolicyVersionRow | None:
        return self.read(policies.in_force)

    def policy_versions(self, before: int = 0, limit: int = MAX_LISTED) -> list[PolicyVersionRow]:
        return self.read(lambda tx: policies.listed(tx, before, limit))

    def policy_version(self, version: int) -> PolicyVersionRow | None:
        return self.read(lambda tx: policies.one(tx, version))

    def policy_document(self, version: int) -> bytes | None:
        return self.read(lambda tx: policies.document(tx, version))

    def first_policy(
        self, draft: PolicyDraft, leaf: Callable[[int], bytes], now_ms: int
    ) -> PolicyVersionRow:
        return self.write(lambda tx, head: policies.first(tx, head, draft, leaf, now_ms))

    def propose_policy(
        self, draft: PolicyDraft, leaf: Callable[[PolicyVersionRow], bytes], now_ms: int
    ) -> PolicyVersionRow:
        return self.write(lambda tx, head: policies.propose(tx, head, draft, leaf, now_ms))

    def apply_policy(
        self, version: int, by: str, leaf: Callable[[PolicyVersionRow, int], bytes], now_ms: int
    ) -> tuple[int, int]:
        return self.write(lambda tx, head: policies.apply(tx, head, version, by, leaf, now_ms))

    def end_policy(
        self,
        version: int,
        event: PolicyEvent,
        by: str,
        leaf: Callable[[PolicyVersionRow], bytes],
        now_ms: int,
    ) -> int:
        return self.write(lambda tx, head: policies.end(tx, head, version, event, by, leaf, now_ms))

    # Certificate authorities.

    def authorities(self) -> list[AuthorityRow]:
        return self.read(authorities.every)

    def add_authority(self, row: AuthorityRow, newest: int, leaf: bytes, now_ms: int) -> int:
        return self.write(lambda tx, head: authorities.add(tx, head, row, newest, leaf, now_ms))

    def move_authority(
        self, row: AuthorityRow, event: AuthorityEvent, leaf: bytes, now_ms: int
    ) -> int:
        return self.write(lambda tx, head: authorities.move(tx, head, row, event, leaf, now_ms))

    def promise_authority(self, version: int, until_ms: int) -> bool:
        return self.write(lambda tx, _: authorities.promise(tx, version, until_ms))

    # Evidence.

    def append(self, leaves: Sequence[bytes], now_ms: int) -> int:
        if not leaves:
            return self.control().tree_size
        return self._together(lambda tx, head: log.sequence(tx, head, leaves, now_ms), len(leaves))

    def submit_audit(self, draft: AuditDraft, now_ms: int) -> AuditAccepted:
        number = self.workload_id(draft.workload)
        # Packed before the turn comes: other writers need not wait for it.
        kept = pack(draft.batch)
        return self._together(lambda tx, head: audit.submit(tx, head, number, draft, kept, now_ms))

    def summarised_tiles(self) -> int:
        return self.read(summaries.tiles)

    def summaries(self, first_tile: int, most: int, longest: int) -> list[tuple[int, bytes]]:
        return self.read(lambda tx: summaries.after(tx, first_tile, most, longest))

    def save_summaries(self, first_tile: int, made: Sequence[bytes]) -> None:
        self._together(lambda tx, _: summaries.save(tx, first_tile, made))

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._together(lambda tx, head: checkpoints.save(tx, head, checkpoint))

    def latest_checkpoint(self) -> Checkpoint | None:
        return self.read(checkpoints.latest)

    def publish_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._together(lambda tx, _: checkpoints.publish(tx, checkpoint))

    def published_checkpoint(self) -> Checkpoint | None:
        return self.read(checkpoints.published)

    def save_contradiction(self, contradiction: Contradiction) -> None:
        self._together(lambda tx, _: checkpoints.contradict(tx, contradiction))

    def contradiction(self) -> Contradiction | None:
        return self.read(checkpoints.contradiction)

    # Numbers of workloads: short in the ledger's rows, and never changed once given.

    def workload_id(self, spiffe_id: str) -> int:
        number = self._workload_ids.get(spiffe_id)
        if number is None:
            number = self.write(lambda tx, _: _number_workload(tx, spiffe_id))
            if len(self._workload_ids) >= MAX_CACHED_WORKLOADS:
                self._workload_ids.clear()
            self._workload_ids[spiffe_id] = number
        return number


def _decide(
    tx: Transaction, head: Head, group: Sequence[Batch], *, careful: bool
) -> list[list[Committed] | None]:
    """Returns the answers of each batch; None for one that was decided under an epoch that is not
    the current one.
    """
    current = [batch for batch in group if batch.epoch == head.epoch]
    if not current:
        return [None] * len(group)
    whole = current[0] if len(current) == 1 else _joined(current)
    drafts, workloads, now_ms = whole.drafts, whole.workloads, whole.now_ms
    if careful or not ledger.is_plain(drafts):
        answers = intents.commit_planned(tx, head, drafts, workloads, now_ms)
    else:
        answers = intents.commit_plain(tx, head, drafts, whole.hashes, workloads, now_ms)
    if len(group) == 1:
        return [answers]
    rest = iter(answers)
    return [
        list(islice(rest, len(batch.drafts))) if batch.epoch == head.epoch else None
        for batch in group
    ]


def _joined(batches: Sequence[Batch]) -> Batch:
    """Returns one batch with the drafts of these, in order."""
    return Batch(
        batches[0].epoch,
        [draft for batch in batches for draft in batch.drafts],
        [value for batch in batches for value in batch.hashes],
        {name: number for batch in batches for name, number in batch.workloads.items()},
        max(batch.now_ms for batch in batches),
    )


def _run(errand: Errand, tx: Transaction, head: Head) -> tuple[Any, Exception | None]:
    """Returns the result of an errand and the error that is its answer; an unexpected error is
    raised.
    """
    try:
        return errand.write(tx, head), None
    except (FailureError, AuditOutOfOrderError) as refusal:
        return None, refusal


def _number_workload(tx: Transaction, spiffe_id: str) -> int:
    tx.send("INSERT INTO workloads (spiffe_id) VALUES (?) ON CONFLICT DO NOTHING", spiffe_id)
    number = _find_workload(tx, spiffe_id)
    assert number is not None
    return number


def _find_workload(tx: Reader, spiffe_id: str) -> int | None:
    row = tx.one("SELECT id FROM workloads WHERE spiffe_id = ?", spiffe_id)
    return int(row[0]) if row else None
