"""The legal transitions of everything that has states, as data (I7).

A table maps each state to the events that are legal in it and the states that they lead to;
everything else is refused. `move` is the only way from state to state, and a state without events
is final.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Generic, TypeVar

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from capsign_wire.types.v1 import signing_pb2 as pb

S = TypeVar("S")
E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True)
class Table(Generic[S, E]):
    """The transition table of one kind of object. It has every state, with its legal events."""

    thing: str
    initial: S
    """The initial state."""
    moves: Mapping[S, Mapping[E, S]]

    def is_final(self, state: S) -> bool:
        """Whether the state has no events."""
        return not self.moves[state]


def move(table: Table[S, E], state: S, event: E) -> S:
    """Returns the state after the event. Raises FailureError ILLEGAL_TRANSITION if the table has no
    such transition.
    """
    try:
        return table.moves[state][event]
    except KeyError:
        raise _illegal(table, state, event.value) from None


def event_between(table: Table[S, E], state: S, target: S) -> E:
    """Returns the event that leads from one state to the other. Raises FailureError
    ILLEGAL_TRANSITION if none does.
    """
    for event, after in table.moves.get(state, {}).items():
        if after == target:
            return event
    raise _illegal(table, state, f"a move to {_words(table, target)}")


class KeyEvent(StrEnum):
    """What happens to a key version. To publish it shows its public keys to verifiers and leaves it
    in its state.
    """

    PUBLISH = "publish"
    ACTIVATE = "activate"
    SUSPEND = "suspend"
    RESUME = "resume"
    DEACTIVATE = "deactivate"
    COMPROMISE = "compromise"
    DESTROY = "destroy"


# NIST SP 800-57 part 1 revision 5, section 7, and stricter in one point: what can still sign, or
# could again, is deactivated before it is destroyed, so that no signature is younger than the end
# of its key.
KEY_VERSION: Table[pb.KeyState.ValueType, KeyEvent] = Table(
    "key version",
    pb.KEY_STATE_PRE_ACTIVATION,
    MappingProxyType(
        {
            pb.KEY_STATE_PRE_ACTIVATION: {
                KeyEvent.PUBLISH: pb.KEY_STATE_PRE_ACTIVATION,
                KeyEvent.ACTIVATE: pb.KEY_STATE_ACTIVE,
                KeyEvent.COMPROMISE: pb.KEY_STATE_COMPROMISED,
                KeyEvent.DESTROY: pb.KEY_STATE_DESTROYED,
            },
            pb.KEY_STATE_ACTIVE: {
                KeyEvent.SUSPEND: pb.KEY_STATE_SUSPENDED,
                KeyEvent.DEACTIVATE: pb.KEY_STATE_DEACTIVATED,
                KeyEvent.COMPROMISE: pb.KEY_STATE_COMPROMISED,
            },
            pb.KEY_STATE_SUSPENDED: {
                KeyEvent.RESUME: pb.KEY_STATE_ACTIVE,
                KeyEvent.DEACTIVATE: pb.KEY_STATE_DEACTIVATED,
                KeyEvent.COMPROMISE: pb.KEY_STATE_COMPROMISED,
            },
            pb.KEY_STATE_DEACTIVATED: {
                KeyEvent.COMPROMISE: pb.KEY_STATE_COMPROMISED,
                KeyEvent.DESTROY: pb.KEY_STATE_DESTROYED,
            },
            pb.KEY_STATE_COMPROMISED: {KeyEvent.DESTROY: pb.KEY_STATE_DESTROYED},
            pb.KEY_STATE_DESTROYED: {},
        }
    ),
)


class IntentState(IntEnum):
    """States of an intent in the ledger. Absent (None) is the only state from which a move is
    legal.
    """

    DONE = 1
    REFUSED = 2
    NEVER = 3


class IntentEvent(StrEnum):
    """What happens to an intent."""

    SIGN = "sign"
    REFUSE = "refuse"
    CLOSE = "close"


INTENT: Table[IntentState | None, IntentEvent] = Table(
    "intent",
    None,
    MappingProxyType(
        {
            None: {
                IntentEvent.SIGN: IntentState.DONE,
                IntentEvent.REFUSE: IntentState.REFUSED,
                IntentEvent.CLOSE: IntentState.NEVER,
            },
            IntentState.DONE: {},
            IntentState.REFUSED: {},
            IntentState.NEVER: {},
        }
    ),
)
"""None is an intent that the ledger does not hold. There is no pending state: whatever happens
to an intent first is final.
"""


def intent_state(event: IntentEvent) -> IntentState:
    """The state of an intent after the first event, which is its last."""
    state = move(INTENT, INTENT.initial, event)
    assert state is not None, "no event leads back to an intent that the ledger does not hold"
    return state


class HandleState(Enum):
    """States of a handle."""

    GOOD = "good"
    EXPIRED = "expired"
    REVOKED = "revoked"


class HandleEvent(StrEnum):
    """What happens to a handle. Renewal makes another; the old one stays valid until it expires."""

    NARROW = "narrow"
    EXPIRE = "expire"
    REVOKE = "revoke"


HANDLE: Table[HandleState, HandleEvent] = Table(
    "handle",
    HandleState.GOOD,
    MappingProxyType(
        {
            HandleState.GOOD: {
                HandleEvent.NARROW: HandleState.GOOD,
                HandleEvent.EXPIRE: HandleState.EXPIRED,
                HandleEvent.REVOKE: HandleState.REVOKED,
            },
            HandleState.EXPIRED: {HandleEvent.REVOKE: HandleState.REVOKED},
            HandleState.REVOKED: {},
        }
    ),
)


def handle_state(*, expired: bool, revoked: bool) -> HandleState:
    """Returns the state of a handle from these two facts; no other state of it is stored."""
    state = HANDLE.initial
    if expired:
        state = move(HANDLE, state, HandleEvent.EXPIRE)
    if revoked:
        state = move(HANDLE, state, HandleEvent.REVOKE)
    return state


class AuthorityState(IntEnum):
    """States of a certificate authority."""

    PREPARED = 1
    """Published, and signs nothing yet."""
    ACTIVE = 2
    """Trusted. The newest active one signs."""
    RETIRED = 3
    """Trusted no more."""


class AuthorityEvent(StrEnum):
    """What happens to an authority."""

    ACTIVATE = "activate"
    RETIRE = "retire"


AUTHORITY: Table[AuthorityState, AuthorityEvent] = Table(
    "authority",
    AuthorityState.PREPARED,
    MappingProxyType(
        {
            AuthorityState.PREPARED: {AuthorityEvent.ACTIVATE: AuthorityState.ACTIVE},
            AuthorityState.ACTIVE: {AuthorityEvent.RETIRE: AuthorityState.RETIRED},
            AuthorityState.RETIRED: {},
        }
    ),
)
"""Of several active ones the newest signs, and all are trusted; `decide.authority_schedule` says
when each moves.
"""


class PolicyState(IntEnum):
    """States of a version of the policy."""

    PROPOSED = 1
    """Waits to be approved."""
    IN_FORCE = 2
    """What is decided by. One version at a time."""
    SUPERSEDED = 3
    """Another version took its place. To go back, its document becomes a new version."""
    REJECTED = 4
    EXPIRED = 5
    CALLED_OFF = 6
    OVERTAKEN = 7
    """It was made against a version that is not in force any more."""


class PolicyEvent(StrEnum):
    """What happens to a version of the policy."""

    APPLY = "apply"
    SUPERSEDE = "supersede"
    REJECT = "reject"
    EXPIRE = "expire"
    CALL_OFF = "call off"
    OVERTAKE = "overtake"


POLICY: Table[PolicyState, PolicyEvent] = Table(
    "policy version",
    PolicyState.PROPOSED,
    MappingProxyType(
        {
            PolicyState.PROPOSED: {
                PolicyEvent.APPLY: PolicyState.IN_FORCE,
                PolicyEvent.REJECT: PolicyState.REJECTED,
                PolicyEvent.EXPIRE: PolicyState.EXPIRED,
                PolicyEvent.CALL_OFF: PolicyState.CALLED_OFF,
                PolicyEvent.OVERTAKE: PolicyState.OVERTAKEN,
            },
            PolicyState.IN_FORCE: {PolicyEvent.SUPERSEDE: PolicyState.SUPERSEDED},
            PolicyState.SUPERSEDED: {},
            PolicyState.REJECTED: {},
            PolicyState.EXPIRED: {},
            PolicyState.CALLED_OFF: {},
            PolicyState.OVERTAKEN: {},
        }
    ),
)


class RolloutStage(IntEnum):
    """Where a rollout is. The numbers are those of capsign.adapter.v1.RolloutStage."""

    PUBLISH = 1
    """The new version is to be made and its public keys shown."""
    PROPAGATE = 2
    """Verifiers have the time that policy states to fetch them."""
    CANARY = 3
    """A growing part of the workloads signs with what is new."""
    DUAL_SIGN = 4
    """One call answers both signatures."""
    PROMOTE = 5
    """All sign with what is new."""
    RETIRE = 6
    """The same, and what was before waits to be deactivated."""
    DONE = 7
    ABORTED = 8
    """A person ended it: all sign as before."""
    ROLLED_BACK = 9
    """A trigger ended it: all sign as before."""
    OVERTAKEN = 10
    """Another rollout, or another act on its versions, came before its end."""


class RolloutEvent(StrEnum):
    """What happens to a rollout."""

    PUBLISHED = "published"
    PROPAGATED = "propagated"
    WIDEN = "widen"
    DUAL_SIGN = "dual-sign"
    PROMOTE = "promote"
    RETIRE = "retire"
    FINISH = "finish"
    ABORT = "abort"
    ROLL_BACK = "roll back"
    OVERTAKE = "overtake"


_ENDS = {RolloutEvent.ABORT: RolloutStage.ABORTED, RolloutEvent.OVERTAKE: RolloutStage.OVERTAKEN}
_JUDGED_ENDS = {**_ENDS, RolloutEvent.ROLL_BACK: RolloutStage.ROLLED_BACK}

ROLLOUT: Table[RolloutStage, RolloutEvent] = Table(
    "rollout",
    RolloutStage.PUBLISH,
    MappingProxyType(
        {
            RolloutStage.PUBLISH: {RolloutEvent.PUBLISHED: RolloutStage.PROPAGATE, **_ENDS},
            RolloutStage.PROPAGATE: {RolloutEvent.PROPAGATED: RolloutStage.CANARY, **_ENDS},
            RolloutStage.CANARY: {
                RolloutEvent.WIDEN: RolloutStage.CANARY,
                RolloutEvent.DUAL_SIGN: RolloutStage.DUAL_SIGN,
                RolloutEvent.PROMOTE: RolloutStage.PROMOTE,
                **_JUDGED_ENDS,
            },
            RolloutStage.DUAL_SIGN: {
                RolloutEvent.PROMOTE: RolloutStage.PROMOTE,
                **_JUDGED_ENDS,
            },
            RolloutStage.PROMOTE: {RolloutEvent.RETIRE: RolloutStage.RETIRE, **_JUDGED_ENDS},
            RolloutStage.RETIRE: {RolloutEvent.FINISH: RolloutStage.DONE, **_ENDS},
            RolloutStage.DONE: {},
            RolloutStage.ABORTED: {},
            RolloutStage.ROLLED_BACK: {},
            RolloutStage.OVERTAKEN: {},
        }
    ),
)


class RolloutPace(IntEnum):
    """Whether a rollout goes on by itself."""

    RUNNING = 1
    HELD = 2
    """A person paused it."""
    INCONCLUSIVE = 3
    """Its figures say neither yes nor no: a person decides."""


class PaceEvent(StrEnum):
    """What happens to the pace of a rollout."""

    PAUSE = "pause"
    DOUBT = "doubt"
    RESUME = "resume"


ROLLOUT_PACE: Table[RolloutPace, PaceEvent] = Table(
    "rollout's pace",
    RolloutPace.RUNNING,
    MappingProxyType(
        {
            RolloutPace.RUNNING: {
                PaceEvent.PAUSE: RolloutPace.HELD,
                PaceEvent.DOUBT: RolloutPace.INCONCLUSIVE,
            },
            RolloutPace.HELD: {PaceEvent.RESUME: RolloutPace.RUNNING},
            RolloutPace.INCONCLUSIVE: {PaceEvent.RESUME: RolloutPace.RUNNING},
        }
    ),
)


class ProposalState(IntEnum):
    """States of a proposal: the numbers of capsign.adapter.v1.ProposalState."""

    PROPOSED = 1
    """It waits for somebody to decide."""
    APPROVED = 2
    """It is approved, and its waiting period runs."""
    EXECUTED = 3
    REJECTED = 4
    EXPIRED = 5
    CALLED_OFF = 6
    OVERTAKEN = 7
    """What it was made for is not as it was."""


class ProposalEvent(StrEnum):
    """What happens to a proposal."""

    APPROVE = "approve"
    EXECUTE = "execute"
    BREAK_GLASS = "break glass"
    REJECT = "reject"
    EXPIRE = "expire"
    CALL_OFF = "call off"
    OVERTAKE = "overtake"


PROPOSAL: Table[ProposalState, ProposalEvent] = Table(
    "proposal",
    ProposalState.PROPOSED,
    MappingProxyType(
        {
            ProposalState.PROPOSED: {
                ProposalEvent.APPROVE: ProposalState.APPROVED,
                ProposalEvent.BREAK_GLASS: ProposalState.EXECUTED,
                ProposalEvent.REJECT: ProposalState.REJECTED,
                ProposalEvent.EXPIRE: ProposalState.EXPIRED,
                ProposalEvent.CALL_OFF: ProposalState.CALLED_OFF,
                ProposalEvent.OVERTAKE: ProposalState.OVERTAKEN,
            },
            ProposalState.APPROVED: {
                ProposalEvent.EXECUTE: ProposalState.EXECUTED,
                ProposalEvent.EXPIRE: ProposalState.EXPIRED,
                ProposalEvent.CALL_OFF: ProposalState.CALLED_OFF,
                ProposalEvent.OVERTAKE: ProposalState.OVERTAKEN,
            },
            ProposalState.EXECUTED: {},
            ProposalState.REJECTED: {},
            ProposalState.EXPIRED: {},
            ProposalState.CALLED_OFF: {},
            ProposalState.OVERTAKEN: {},
        }
    ),
)
"""Nothing happens that was not approved, except by who breaks the glass; what is final stays so,
so that no approval serves twice.
"""


def _illegal(table: Table[S, E], state: S, wish: str) -> FailureError:
    allowed = (
        ", ".join(event.value for event in table.moves.get(state, {}))
        or "nothing: the state is final"
    )
    words = (
        f"A {table.thing} that is {_words(table, state)} does not take {wish!r}; it takes "
        f"{allowed}."
    )
    return FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, words)


def _words(table: Table[S, E], state: S) -> str:
    """A state as people write it."""
    if state is None:
        return "absent"
    if isinstance(state, Enum):
        return state.name.lower().replace("_", " ")
    name = pb.KeyState.DESCRIPTOR.values_by_number.get(state) if isinstance(state, int) else None
    return (
        name.name.removeprefix("KEY_STATE_").lower().replace("_", "-")
        if name
        else f"in a state unknown to a {table.thing}"
    )
