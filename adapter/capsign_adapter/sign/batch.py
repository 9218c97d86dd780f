"""The records of a batch in the signing path: one for each item, each group, and the batch.

The modules of the steps write into them, in the order that `pipeline` has. A batch that is decided
anew, because something was revoked meanwhile, keeps its records: `take_back` clears what an attempt
decided, and leaves what holds for all attempts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.token_bucket import Taken
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.biscuits import Verified
from capsign_adapter.decide.budget import UsedUpError
from capsign_adapter.decide.peer import Peer
from capsign_adapter.model.intents import Committed, Draft, Verdict
from capsign_adapter.model.lifecycle import IntentEvent, IntentState
from capsign_adapter.sign.fair_scheduler import Turn
from capsign_adapter.sign.revocation_barrier import ReleaseTicket
from capsign_adapter.sign.scope import AdmittedGroup, HandleScope, Signable
from capsign_adapter.sign.signing_threads import TokenBreaker
from capsign_adapter.sign.snapshot import Snapshot


@dataclass(slots=True)
class Item:
    """One thing to sign."""

    asked: pb.SignItem
    intent_id: bytes
    failure: failures_pb2.Failure | None = None
    """Why it is not signed, unless the ledger has another outcome."""
    fingerprint: bytes = b""
    """What its intent is bound to."""
    signatures: Sequence[bytes] = ()
    """One by each key of its group. Released only if the ledger accepts the draft."""
    draft: Draft = field(init=False)
    """What is to be committed: a signature or a final refusal. Unset until `Batch.draft`."""
    committed: Committed | None = None
    """The ledger's answer to the draft."""
    signed_before: bool = False
    """An earlier attempt signed its intent, before something was revoked. Kept by `take_back`."""

    @property
    def is_signed(self) -> bool:
        """Whether the ledger holds a signature for its intent."""
        if self.committed is None:
            return False
        if self.committed.stored is not None:
            return self.committed.stored.state is IntentState.DONE
        return self.committed.verdict is Verdict.NEW and self.draft.event is IntentEvent.SIGN

    def take_back(self) -> None:
        """See Batch."""
        self.signed_before |= self.is_signed
        self.failure = self.committed = None
        self.signatures = ()


@dataclass(slots=True)
class Group:
    """Items with one handle, algorithm and context."""

    asked: pb.SignGroup
    items: list[Item]
    open: Sequence[Item]
    """Those items that may still be signed."""
    handle: Verified | None = None
    """2: the verified handle; None if the decision came from the cache."""
    admitted: AdmittedGroup | None = None
    """3: what the policy allows."""
    taken: Taken | None = None
    """4: what the rate gave. Kept by `take_back`: a new attempt is not charged again."""
    signable: Signable | None = None
    """5: the key and what the items share. From the cache it stands for 2 and 3 as well."""

    @property
    def terms(self) -> Signable | AdmittedGroup:
        """What was decided by step 3: the grant and its rate."""
        terms = self.signable or self.admitted
        assert terms is not None
        return terms

    def take_back(self) -> None:
        """See Batch."""
        self.open = self.items
        self.handle = self.admitted = self.signable = None
        for item in self.items:
            item.take_back()


@dataclass(slots=True)
class Batch:
    """The items of one message. They are committed in one transaction; in several, if other batches
    are being worked on.
    """

    peer: Peer
    request: pb.SignRequest
    turn: Turn
    ticket: ReleaseTicket
    groups: list[Group]

    # Of one attempt.

    snapshot: Snapshot = field(init=False)
    now_ms: int = 0
    oldest: bytes = b""
    """Intent ids that sort below it are older than the retention."""
    waiting: list[Item] = field(default_factory=list)
    """Items whose drafts wait for the next commit."""
    unattributed: list[bytes] = field(default_factory=list)
    """Leaves of refusals without a valid handle, which belong to no grant."""
    committed: int = 0
    """Number of drafts that the ledger has answered."""
    used_up_ms: int = 0
    """Milliseconds until the peer's budget, which a part of the batch exhausted, is refilled; 0: it
    is not exhausted.
    """

    # Of all its attempts.

    token_breaker: TokenBreaker = field(default_factory=TokenBreaker)
    recorded: bool = False
    """Whether the unattributed refusals are in the log."""
    granted: int = 0
    """Signatures that the rate and the evidence quota allowed."""
    made: int = 0
    """Signatures that were written, or may have been."""
    refused: int = 0
    """Refusals that are to be recorded."""

    @classmethod
    def of(cls, peer: Peer, request: pb.SignRequest, turn: Turn, ticket: ReleaseTicket) -> Batch:
        """Returns the records of a request, before any step."""
        groups = []
        for asked in request.groups:
            items = [Item(one, one.intent_id) for one in asked.items]
            groups.append(Group(asked, items, items))
        return cls(peer, request, turn, ticket, groups)

    def begin(self, snapshot: Snapshot, now_ms: int, oldest: bytes) -> None:
        """Begin an attempt under this snapshot. Intent ids that sort below `oldest` are refused."""
        self.snapshot, self.now_ms, self.oldest = snapshot, now_ms, oldest

    def take_back(self) -> None:
        """Clear what this attempt decided: nothing of it is released. Which items it signed is
        kept.
        """
        for group in self.groups:
            group.take_back()
        self.waiting, self.unattributed = [], []
        self.committed = self.used_up_ms = 0

    def token_of(self, group: Group) -> bytes:
        """Returns the handle that a group names. Raises FailureError INPUT_MALFORMED."""
        index, tokens = group.asked.handle_index, self.request.handles
        if index >= len(tokens):
            detail = "No such handle in this batch."
            raise FailureError(failures_pb2.REASON_INPUT_MALFORMED, detail, field="handle_index")
        return tokens[index]

    @property
    def items(self) -> Iterator[Item]:
        """All items, in order."""
        return (item for group in self.groups for item in group.items)

    def fail(self, items: Iterable[Item], error: FailureError) -> None:
        """Set the failure of items for which nothing is recorded."""
        if isinstance(error, UsedUpError):
            self.used_up_ms = max(self.used_up_ms, error.retry_after_ms)
        failure = error.to_item()
        for item in items:
            item.failure = failure

    def draft(
        self,
        items: Sequence[Item],
        scope: HandleScope,
        event: IntentEvent,
        results: Sequence[bytes],
        leaves: Sequence[bytes],
    ) -> None:
        """Queue the outcomes of items for the next commit, with their leaves."""
        workload, grant = self.peer.spiffe_id, scope.capability.grant
        serial, max_uses = scope.capability.serial, scope.max_uses
        oldest, refused = self.oldest, partial(scope.leaf.refused, self.now_ms)
        for item, result, leaf in zip(items, results, leaves, strict=True):
            intent_id, fingerprint = item.intent_id, item.fingerprint
            item.draft = Draft(
                workload,
                intent_id,
                fingerprint,
                grant,
                event,
                result,
                leaf,
                partial(refused, intent_id, fingerprint),
                serial,
                max_uses,
                intent_id < oldest,
            )
        self.waiting.extend(items)
