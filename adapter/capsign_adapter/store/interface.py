"""What the adapter asks of its store: the ledger of intents, the evidence log and the control
state, in one transaction.

Durability: when a writing method returns, what it wrote survives kill -9 and power loss. When it
raises StoreUnavailableError nothing was written. When it raises CommitUnknownError nobody can say;
asking again gives the truth, because every write here is safe to repeat.

Concurrency: any thread of any replica may call any method. Writers are serialised by the database.
The ledger has no "pending" state: an intent is absent, or its row is final, inserted in the
transaction that sequences its leaf (docs/decisions/).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.control import Control, Laggard, Revocation
from capsign_adapter.model.evidence import AuditAccepted, AuditDraft, Checkpoint
from capsign_adapter.model.intents import Committed, Draft, Stored
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import AuthorityEvent, KeyEvent

MAX_COLLECTED = 10_000
"""Intents that one collection deletes: other writers wait that long and no longer."""


class Store(Protocol):
    """See the module's text for what every method guarantees."""

    @property
    def name(self) -> str:
        """ "sqlite" or "postgresql"."""

    def control(self) -> Control:
        """The control row now."""

    def clock_ms(self) -> int | None:
        """What time it is for the store, milliseconds since 1970; None if it has no other clock
        than its callers.

        It is for what one replica does for all of them, once: its own clock may be wrong, and no
        other will look.
        """

    def size_bytes(self) -> int:
        """What the whole store takes on its disk, with its indexes and its log of writes."""

    # The ledger.

    def commit(self, epoch: int, drafts: Sequence[Draft], now_ms: int) -> list[Committed]:
        """Commit a batch in one transaction; results in order.

        Inside the transaction, in this order: the revocation epoch is compared (EpochMovedError);
        each draft is inserted if its (workload, intent_id) is absent; an existing row with the same
        fingerprint and grant is a REPLAY, with another one INTENT_CONFLICT, a NEVER row
        INTENT_NEVER; absent ids older than the watermark are refused INTENT_EXPIRED; uses are
        counted for drafts that are DONE and new (USES_EXHAUSTED, which gets a row in state
        REFUSED); leaves are sequenced. Two drafts of one batch with the same id: the second sees
        the first. Fingerprints are compared in constant time.
        """

    def find(self, workload: str, intent_ids: Sequence[bytes]) -> dict[bytes, Stored]:
        """The rows that exist, without writing."""

    def resolve(
        self, workload: str, intent_id: bytes, grant: str, never_leaf: bytes, now_ms: int
    ) -> Stored:
        """The row of this intent; if there is none, one in state NEVER with its leaf. Durable when
        this returns.

        Raises FailureError INTENT_EXPIRED if the id is older than the watermark and no row is left
        to tell, and INTENT_CONFLICT if the row belongs to another grant.
        """

    def collect_garbage(self, now_ms: int, retention_ms: int, limit: int = MAX_COLLECTED) -> int:
        """Move the watermark and delete up to `limit` rows older than it, in one transaction; how
        many went.

        It moves to `retention_ms` before `now_ms` or before the time of the newest intent that has
        a row, whichever is earlier, and never back. So the caller's clock alone closes no window,
        and a ledger without a row stays as it is.
        """

    # Control state.

    def revoke(
        self, kind: int, target: str, leaf: Callable[[int], bytes], now_ms: int
    ) -> tuple[int, int]:
        """Record a revocation under a new epoch; (epoch, leaf index). After it returns, no commit
        under an older epoch passes.
        """

    # Replicas: what a revocation waits for (docs/decisions/, "A revocation outlasts what is in
    # flight"). No clock is stored.

    def announce(self, replica_id: bytes, working: int, drained: int, lease_ms: int) -> None:
        """This replica decides under epoch `working`, and holds nothing unreleased of an epoch
        below `drained`.

        Both only rise, whatever the order in which threads announce. A batch that it committed it
        releases within `lease_ms`.
        """

    def withdraw(self, replica_id: bytes) -> None:
        """This replica has ended and will release nothing more."""

    def laggards(self, epoch: int) -> list[Laggard]:
        """Replicas that may still hold something of an epoch below this one."""

    def forget_replicas(self, epoch: int) -> int:
        """Forget those that still work under an epoch below this one, once their leases have ended;
        how many.

        One that is alive after all announces itself anew before it works under a later epoch.
        """

    def revocations(self) -> tuple[int, list[Revocation]]:
        """The epoch and everything revoked up to it, in one read."""

    def key_versions(self) -> list[KeyVersionRow]:
        """All versions of all keys, oldest first."""

    def add_key_version(self, row: KeyVersionRow, leaf: bytes, now_ms: int) -> int:
        """Record a version that was just made; leaf index. Raises FailureError ILLEGAL_TRANSITION
        if it exists already.
        """

    def move_key_version(
        self, row: KeyVersionRow, event: KeyEvent, leaf: bytes, now_ms: int
    ) -> int:
        """Move a version on by an event (`model.key_versions.moved`) and raise the epoch; leaf
        index.

        Raises FailureError ILLEGAL_TRANSITION if the row is not in `row.state` any more, or the
        table has no such move.
        """

    # The certificate authorities. A change raises no epoch: signing does not depend on them.

    def authorities(self) -> list[AuthorityRow]:
        """All of them, oldest first."""

    def add_authority(self, row: AuthorityRow, newest: int, leaf: bytes, now_ms: int) -> int:
        """Record an authority in state PREPARED that was just made; leaf index. `newest` is the
        version of the newest one that its maker knew of, 0 for none.

        Raises FailureError ILLEGAL_TRANSITION if there is a newer one than that by now, whatever
        its state, or one is PREPARED.
        """

    def move_authority(
        self, row: AuthorityRow, event: AuthorityEvent, leaf: bytes, now_ms: int
    ) -> int:
        """Move an authority on by an event (`model.authorities.moved`); leaf index.

        Raises FailureError ILLEGAL_TRANSITION if the row is not in `row.state` any more, or the
        table has no such move.
        """

    def promise_authority(self, version: int, until_ms: int) -> bool:
        """Let this authority sign what is valid until then; the promise never falls. False, with
        nothing written, if it is not the newest active one any more.
        """

    # Evidence.

    def append(self, leaves: Sequence[bytes], now_ms: int) -> int:
        """Sequence entries that belong to no intent (administrative acts, refusals before an intent
        is known); first index.
        """

    def submit_audit(self, draft: AuditDraft, now_ms: int) -> AuditAccepted:
        """Take an agent's batch exactly once. Raises AuditOutOfOrderError."""

    def audit_batches(
        self, workload: str = "", first_leaf: int = 0, limit: int = 256
    ) -> list[tuple[int, str, bytes]]:
        """Batches taken, as (leaf index, workload, batch), ascending from a leaf."""

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """Hashes of tile level `level` (tree level 8 * level) from `first`; complete subtrees only,
        so maybe fewer.
        """

    def entries(self, first: int, count: int) -> list[bytes]:
        """Entries from leaf `first`, fewer if there are fewer."""

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Make a checkpoint durable; call before showing it. A smaller tree than the last saved is
        ignored.
        """

    def latest_checkpoint(self) -> Checkpoint | None:
        """The last saved."""

    def close(self) -> None:
        """Close connections."""
