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
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

from capsign_wire.types.v1 import failures_pb2, signing_pb2


class StoreUnavailableError(Exception):
    """The store cannot be used now, and nothing was written."""


class CommitUnknownError(Exception):
    """The store failed during commit: it may or may not be durable."""


class EpochMovedError(Exception):
    """Something was revoked since the caller decided. Nothing was written: decide again under the
    current epoch.
    """


class IntentState(IntEnum):
    """States of an intent in the ledger. Absent is the only state from which a move is legal; see
    decide/lifecycle.py.
    """

    DONE = 1
    REFUSED = 2
    NEVER = 3


class Draft(NamedTuple):
    """One decided item, ready to commit.

    `leaf` is the encoded entry that goes into the log if the intent is new; `refusal_leaf(reason)`
    makes the entry that goes in instead if the ledger refuses it (conflict, never, expired, uses
    exhausted). `result` is the stored answer: the serialised capsign.adapter.v1.SignedItem for
    DONE, the serialised Failure for REFUSED.
    """

    workload: str
    intent_id: bytes
    fingerprint: bytes
    grant: str
    state: IntentState
    result: bytes
    leaf: bytes
    refusal_leaf: Callable[[failures_pb2.Reason.ValueType], bytes]
    handle_serial: bytes = b""
    max_uses: int = 0
    late: bool = False
    """The id is older than the retention by the clock of the replica that decided: only a row that
    is there may answer for it.
    """


class Verdict(IntEnum):
    """What the ledger said of a draft."""

    NEW = 1
    """It was inserted and sequenced: release the result."""
    REPLAY = 2
    """The same intent was committed before: release `stored` instead. No new leaf."""
    REFUSED = 3
    """The ledger refuses it for `reason`; a refusal leaf was sequenced. Release nothing."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A final row of the ledger."""

    state: IntentState
    grant: str
    result: bytes
    leaf_index: int


class Committed(NamedTuple):
    """What became of a draft. `leaf_index` is that of the original leaf for a replay."""

    verdict: Verdict
    leaf_index: int
    stored: Stored | None = None
    reason: failures_pb2.Reason.ValueType = failures_pb2.REASON_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Control:
    """The control row, as one read saw it."""

    revocation_epoch: int
    intent_watermark_ms: int
    tree_size: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """Something withdrawn. `kind` is capsign.adapter.v1.RevocationKind."""

    epoch: int
    kind: int
    target: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Laggard:
    """A replica that has not yet said that nothing of an older epoch is left in it. After
    `lease_ms` that cannot matter.
    """

    replica_id: bytes
    lease_ms: int


@dataclass(frozen=True, slots=True)
class KeyVersionRow:
    """One version of a key. `check_value` is 8 bytes. `algorithms` are enum numbers.

    `activation_epoch` is part of every context derived under this version: it counts up each time
    any version of the key is activated, so that a version that is activated again (a rollback) does
    not give the subkeys of its earlier life. 0: never yet. `derived` tells a derivation root from a
    key pair that signs in the token.
    """

    tenant: str
    key: str
    version: int
    state: signing_pb2.KeyState.ValueType
    algorithms: tuple[int, ...]
    label: str
    check_value: bytes
    created_ms: int
    activated_ms: int = 0
    activation_epoch: int = 0
    derived: bool = True


class AuthorityState(IntEnum):
    """States of a certificate authority; see decide/lifecycle.py."""

    PREPARED = 1
    """Published, and signs nothing yet."""
    ACTIVE = 2
    """Trusted. The newest active one signs."""
    RETIRED = 3
    """Trusted no more."""


@dataclass(frozen=True, slots=True)
class AuthorityRow:
    """A certificate authority. `certificate` is DER; `check_value` is 8 bytes; times are
    milliseconds since 1970, 0 for not yet.

    `expires_ms` is the end of its certificate. `signed_until_ms` is a promise made before the
    signing: nothing that it signed, or will sign without a further promise, is valid after that.
    """

    version: int
    state: AuthorityState
    certificate: bytes
    label: str
    check_value: bytes
    created_ms: int
    expires_ms: int
    activated_ms: int = 0
    signed_until_ms: int = 0
    retired_ms: int = 0


@dataclass(frozen=True, slots=True)
class AuditDraft:
    """A batch of an agent's records, decoded and checked by the caller; `batch_hash` is SHA-256 of
    `batch`.
    """

    workload: str
    boot_id: bytes
    previous: bytes
    first_sequence: int
    last_sequence: int
    closes: bool
    batch: bytes
    batch_hash: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class AuditAccepted:
    """The batch is durable; `leaf_index` is where it is in the log, also when it was sent
    before.
    """

    accepted_through: int
    leaf_index: int
    duplicate: bool


class AuditOutOfOrderError(Exception):
    """The batch does not follow the last one accepted of its boot (`accepted_through`). Nothing was
    written.
    """

    def __init__(self, accepted_through: int) -> None:
        super().__init__(f"accepted through {accepted_through}")
        self.accepted_through = accepted_through


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed checkpoint that was made durable before it was shown to anybody."""

    tree_size: int
    root: bytes
    note: bytes
    at_ms: int = field(default=0)


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
        self, row: KeyVersionRow, state: signing_pb2.KeyState.ValueType, leaf: bytes, now_ms: int
    ) -> int:
        """Move a version to another state and raise the epoch; leaf index.

        Raises FailureError ILLEGAL_TRANSITION if the row is not in `row.state` any more. The caller
        checked the table.
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
        self, row: AuthorityRow, state: AuthorityState, leaf: bytes, now_ms: int
    ) -> int:
        """Move an authority on at `now_ms`; leaf index.

        Raises FailureError ILLEGAL_TRANSITION if the row is not in `row.state` any more. The caller
        checked the table.
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
