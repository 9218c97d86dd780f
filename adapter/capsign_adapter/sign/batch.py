"""A batch on its way through the numbered steps: a record of each item, each group and the batch.

The modules named after the steps write into the records; `pipeline` has the order. A batch that is
decided anew, because something was revoked meanwhile, keeps its records: `take_back` clears what
was decided, and what must outlast that stays.
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
from capsign_adapter.sign.signing_threads import Patience
from capsign_adapter.sign.snapshot import Snapshot


@dataclass(slots=True)
class Item:
    """One thing to sign."""

    asked: pb.SignItem
    failure: failures_pb2.Failure | None = None
    """Why it is not signed, unless the ledger says something else."""
    fingerprint: bytes = b""
    """What its intent is bound to."""
    signatures: Sequence[bytes] = ()
    """One by each key of its group. They leave only if the ledger takes the draft."""
    draft: Draft = field(init=False)
    """What is to be committed: a signature, or a refusal that is final. Unset until then."""
    committed: Committed | None = None
    """What the ledger said of the draft."""
    signed_before: bool = False
    """An earlier attempt signed its intent, before something was revoked. Outlasts `take_back`."""

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
    """Things to sign in the same way: under one handle, algorithm and context."""

    asked: pb.SignGroup
    items: list[Item]
    open: Sequence[Item]
    """Those of them that may still be signed."""
    handle: Verified | None = None
    """2: who may sign what, if it was verified now and not a moment ago."""
    admitted: AdmittedGroup | None = None
    """3: what policy allows of that."""
    taken: Taken | None = None
    """4: what the rate gave. Outlasts `take_back`: what is decided anew is not charged anew."""
    signable: Signable | None = None
    """5: the key, and all that the items share; or this from a moment ago, in place of 2 and 3."""

    @property
    def terms(self) -> Signable | AdmittedGroup:
        """What was decided, after 3: the grant and its rate."""
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
    """What came in one message, and is committed in one transaction or, among others, in a few."""

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
    """Items whose draft waits for the next commit."""
    unattributed: list[bytes] = field(default_factory=list)
    """Leaves of refusals that no handle vouches for."""
    committed: int = 0
    """Drafts that the ledger has answered."""
    used_up_ms: int = 0
    """How long until the budget of this peer, which a part of the batch has used up, has something
    in it again.
    """

    # Of all its attempts.

    patience: Patience = field(default_factory=Patience)
    """With a token that gives no answer."""
    recorded: bool = False
    """Whether refusals that no handle vouches for are in the log."""
    granted: int = 0
    """Signatures that the rate and the evidence quota have let pass."""
    made: int = 0
    """Signatures that were written, or may have been."""
    refused: int = 0
    """Refusals that are to be recorded."""

    @classmethod
    def of(cls, peer: Peer, request: pb.SignRequest, turn: Turn, ticket: ReleaseTicket) -> Batch:
        """The records of what a peer asks for, before any step."""
        groups = []
        for asked in request.groups:
            items = [Item(one) for one in asked.items]
            groups.append(Group(asked, items, items))
        return cls(peer, request, turn, ticket, groups)

    def begin(self, snapshot: Snapshot, now_ms: int, oldest: bytes) -> None:
        """It is decided under this snapshot now."""
        self.snapshot, self.now_ms, self.oldest = snapshot, now_ms, oldest

    def take_back(self) -> None:
        """Nothing of this attempt leaves. What of it was signed is remembered."""
        for group in self.groups:
            group.take_back()
        self.waiting, self.unattributed = [], []
        self.committed = self.used_up_ms = 0

    def token_of(self, group: Group) -> bytes:
        """The handle that a group names. Raises FailureError INPUT_MALFORMED."""
        index, tokens = group.asked.handle_index, self.request.handles
        if index >= len(tokens):
            detail = "No such handle in this batch."
            raise FailureError(failures_pb2.REASON_INPUT_MALFORMED, detail, field="handle_index")
        return tokens[index]

    @property
    def items(self) -> Iterator[Item]:
        """All of them, in order."""
        return (item for group in self.groups for item in group.items)

    def fail(self, items: Iterable[Item], error: FailureError) -> None:
        """These did not happen, and nothing is written down about them."""
        if isinstance(error, UsedUpError):
            self.used_up_ms = max(self.used_up_ms, error.retry_after_ms)
        failure = error.to_item()
        for item in items:
            item.failure = failure

    def draft(
        self, item: Item, scope: HandleScope, event: IntentEvent, result: bytes, *leaves: bytes
    ) -> None:
        """Let what was decided of an item wait for the next commit, with a leaf for each of its
        signatures or one for its refusal.
        """
        intent_id, fingerprint, capability = (
            item.asked.intent_id,
            item.fingerprint,
            scope.capability,
        )
        item.draft = Draft(
            self.peer.spiffe_id,
            intent_id,
            fingerprint,
            capability.grant,
            event,
            result,
            leaves[0],
            partial(scope.leaf.refused, self.now_ms, intent_id, fingerprint),
            capability.serial,
            scope.max_uses,
            intent_id < self.oldest,
            leaves[1:],
        )
        self.waiting.append(item)
