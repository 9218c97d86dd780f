"""What people may do to key versions: one row for each act, and what a caller hears when no version
signs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from capsign_evidence.leaf_kinds import Act
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign_adapter.decide.policy import Role
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import KeyEvent

LOOKING = frozenset({Role.OPERATOR, Role.RESPONDER, Role.AUDITOR, Role.APPROVER})
"""Who may see keys and their versions."""

MAKING = frozenset({Role.OPERATOR})
"""Who may have the token make a key, or a version of one."""

_OPERATORS = frozenset({Role.OPERATOR})
_EMERGENCY = frozenset({Role.OPERATOR, Role.RESPONDER})


@dataclass(frozen=True, slots=True)
class KeyRule:
    """One event in the life of a version: who may bring it about, what the log calls it, and
    whether nothing may be released under the old state once it is answered (I6).
    """

    act: Act
    roles: frozenset[Role]
    withdraws: bool = False


RULES: Mapping[KeyEvent, KeyRule] = MappingProxyType(
    {
        KeyEvent.PUBLISH: KeyRule(Act.KEY_PUBLISHED, _OPERATORS),
        KeyEvent.ACTIVATE: KeyRule(Act.KEY_ACTIVATED, _OPERATORS),
        KeyEvent.SUSPEND: KeyRule(Act.KEY_SUSPENDED, _EMERGENCY, withdraws=True),
        KeyEvent.RESUME: KeyRule(Act.KEY_RESUMED, _OPERATORS),
        KeyEvent.DEACTIVATE: KeyRule(Act.KEY_DEACTIVATED, _OPERATORS, withdraws=True),
        KeyEvent.COMPROMISE: KeyRule(Act.KEY_COMPROMISED, _EMERGENCY, withdraws=True),
    }
)
"""Acts of one person. To destroy takes two (`decide.approvals`), and is in no row here."""


def demand_newest(rows: Iterable[KeyVersionRow], name: str, newest: int) -> None:
    """Whoever asks for a further version knows which one is the newest, so that what is asked twice
    is made once. 0: there is none yet. Raises FailureError ILLEGAL_TRANSITION.
    """
    found = max((row.version for row in rows), default=0)
    if found == newest:
        return
    detail = f"The newest version of {name} is {found}, not {newest}. Look at the key again."
    if not newest:
        detail = (
            f"{name} has a version {found} already. Make a further one (`capsign keys rotate`)."
        )
    if not found:
        detail = f"{name} has no version yet. Create it (`capsign keys create`)."
    raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)


def none_signs(
    rows: Iterable[KeyVersionRow], tenant: str, key: str, algorithm: int
) -> FailureError:
    """Why no version of the key signs with this algorithm. `rows` are its versions, newest first.

    A suspended one may sign again, so who can bring that about is named.
    """
    fitting = [row for row in rows if algorithm in row.algorithms]
    for row in fitting:
        if row.state == signing_pb2.KEY_STATE_SUSPENDED:
            detail = f"Version {row.version} of the key {tenant}/{key} is suspended."
            return FailureError(failures_pb2.REASON_KEY_SUSPENDED, detail)
    detail = "This key has no active version for this algorithm."
    return FailureError(failures_pb2.REASON_KEY_NOT_ACTIVE, detail)
