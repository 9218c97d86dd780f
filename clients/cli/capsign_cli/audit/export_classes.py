"""Which OCSF class and activity each event is, and how severe: the table of decision 64.

Class and activity numbers are those of OCSF 1.8.0. What no row names is API activity, so that
nothing is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from capsign_evidence.archive.events import AGENT, UNREADABLE, Event

VERSION = "1.8.0"
"""The version of OCSF that is written."""


class Severity(IntEnum):
    """`severity_id` of OCSF."""

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


@dataclass(frozen=True, slots=True)
class EventClass:
    """A class: its category and the captions of the activities that we use."""

    uid: int
    name: str
    category_uid: int
    category: str
    activities: dict[int, str]


FINDING = EventClass(2004, "Detection Finding", 2, "Findings", {1: "Create", 3: "Close"})
AUTHENTICATION = EventClass(3002, "Authentication", 3, "Identity & Access Management", {})
ENTITY = EventClass(
    3004,
    "Entity Management",
    3,
    "Identity & Access Management",
    {
        1: "Create",
        3: "Update",
        4: "Delete",
        8: "Enable",
        9: "Disable",
        10: "Activate",
        11: "Deactivate",
        12: "Suspend",
        13: "Resume",
    },
)
LIFECYCLE = EventClass(
    6002, "Application Lifecycle", 6, "Application Activity", {3: "Start", 4: "Stop"}
)
API = EventClass(6003, "API Activity", 6, "Application Activity", {1: "Create", 2: "Read"})
OTHER = 99


@dataclass(frozen=True, slots=True)
class Classified:
    """Class and activity of an event. `operation` names what was done, and is the name of an
    activity that OCSF does not have.
    """

    of: EventClass
    activity: int
    operation: str
    severity: Severity = Severity.INFORMATIONAL

    @property
    def activity_name(self) -> str:
        """The caption, or our own word for what OCSF calls Other."""
        return self.of.activities.get(self.activity, self.operation)

    @property
    def type_uid(self) -> int:
        """As OCSF computes it."""
        return self.of.uid * 100 + self.activity

    @property
    def type_name(self) -> str:
        """Class and caption of the activity."""
        return f"{self.of.name}: {self.of.activities.get(self.activity, 'Other')}"


_SIGN = Classified(API, OTHER, "Sign")
_ISSUE = Classified(AUTHENTICATION, OTHER, "Issue certificate")

_KINDS = {
    "signed": _SIGN,
    "signed-twice": _SIGN,
    "refused": Classified(API, OTHER, "Sign", Severity.LOW),
    "refused-unbound": Classified(API, OTHER, "Sign", Severity.LOW),
    "never": Classified(API, OTHER, "Resolve"),
    "agent-batch": Classified(API, 1, "SubmitAudit"),
    "verifications-reported": Classified(API, OTHER, "ReportVerifications"),
    "identity-issued": _ISSUE,
    "identity-refused": Classified(AUTHENTICATION, OTHER, "Issue certificate", Severity.LOW),
    UNREADABLE: Classified(FINDING, 1, "unreadable", Severity.HIGH),
}
"""Of entries of the log."""

_RECORDS = {
    "open": Classified(LIFECYCLE, 3, "Start"),
    "close": Classified(LIFECYCLE, 4, "Stop"),
    "recovered": Classified(LIFECYCLE, OTHER, "Recover"),
    "alive": Classified(LIFECYCLE, OTHER, "Alive"),
    "intent": _SIGN,
    "outcome": _SIGN,
    "handles": Classified(API, 2, "FetchHandles"),
    "identity-issued": _ISSUE,
    "identity-renewed": Classified(AUTHENTICATION, OTHER, "Renew certificate"),
    "identity-refused": Classified(AUTHENTICATION, OTHER, "Issue certificate", Severity.LOW),
    "verifications": Classified(API, OTHER, "Verify"),
    "split-view": Classified(FINDING, 1, "split-view", Severity.CRITICAL),
    UNREADABLE: Classified(FINDING, 1, "unreadable", Severity.HIGH),
}
"""Of records of agents."""

_ACTS = {
    "key-created": 1,
    "log-opened": 1,
    "authority-prepared": 1,
    "proposed": 1,
    "policy-proposed": 1,
    "rollout-started": 1,
    "key-published": 3,
    "policy-applied": 3,
    "key-destroyed": 4,
    "tenant-erased": 4,
    "revocation-lifted": 8,
    "key-compromised": 9,
    "key-activated": 10,
    "authority-activated": 10,
    "key-deactivated": 11,
    "authority-retired": 11,
    "key-suspended": 12,
    "key-resumed": 13,
}
"""Activities of entity management, by the act; others that revoke disable, steps of a rollout
update, and all else is Other by its own name.
"""

_GRAVE = {
    "broke-glass": Severity.HIGH,
    "key-compromised": Severity.HIGH,
    "key-destroyed": Severity.MEDIUM,
    "tenant-erased": Severity.HIGH,
}
_PASSING = frozenset({"late", "silence"})
_WORST = frozenset(
    {
        "signature-without-leaf",
        "split-view",
        "forged-chain",
        "rolled-back",
        "batch-lost",
        "incidents-forgotten",
    }
)


def classify(event: Event) -> Classified:
    """The class and activity of an event."""
    if event.what in {"incident", "drift"}:
        return _found(event)
    if event.what in {"admin", "proposal", "rollout-step"}:
        return _act(event)
    known = (_RECORDS if event.stream == AGENT else _KINDS).get(event.what)
    if known is None:
        return Classified(API, OTHER, event.what)
    if known is _SIGN and event.outcome == "refused":
        return _KINDS["refused"]
    return known


def _act(event: Event) -> Classified:
    revokes = event.act.endswith("-revoked")
    step = event.what == "rollout-step"
    activity = _ACTS.get(event.act, 9 if revokes else 3 if step else OTHER)
    severity = _GRAVE.get(event.act, Severity.MEDIUM if revokes else Severity.INFORMATIONAL)
    return Classified(ENTITY, activity, event.act, severity)


def _found(event: Event) -> Classified:
    if event.act in {"ended", "drift-gone"}:
        return Classified(FINDING, 3, event.subject)
    grave = event.subject in _WORST
    if event.what == "drift":
        severity = Severity.HIGH if event.act == "unknown-object" else Severity.MEDIUM
    elif event.subject in _PASSING:
        severity = Severity.MEDIUM
    else:
        severity = Severity.CRITICAL if grave else Severity.HIGH
    return Classified(FINDING, 1, event.subject, severity)
