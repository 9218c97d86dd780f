"""Entries of the log as events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from capsign_wire.algorithms import ALGORITHMS, CUSTODY_NAMES
from capsign_wire.failures import REASONS

from capsign_evidence.archive import act_targets
from capsign_evidence.archive.details import STAGES, told
from capsign_evidence.archive.events import ADAPTER, NAMES, UNREADABLE, Event
from capsign_evidence.drift_leaf import Drifted
from capsign_evidence.incident_leaf import IncidentLeaf
from capsign_evidence.leaf_fields import LeafError
from capsign_evidence.leaf_kinds import Act, Kind
from capsign_evidence.leaf_reader import Admin, Entry, Proposal, decode
from capsign_evidence.retired_leaf import Retired
from capsign_evidence.rollout_leaf import RolloutStep
from capsign_evidence.signing_leaf import SecondKey, SigningLeaf

OUTCOMES = {
    Kind.SIGNED: "done",
    Kind.SIGNED_TWICE: "done",
    Kind.REFUSED: "refused",
    Kind.REFUSED_UNBOUND: "refused",
    Kind.IDENTITY_REFUSED: "refused",
    Kind.NEVER: "never",
}

_RENAMED = {
    "first_sequence": "sequence",
    "key_hash": "cert_key_hash",
    "verified_algorithm": "algorithm",
    "leaf_index_plus_one": "names_leaf",
    "first": "sequence",
    "last": "last_sequence",
}
"""Fields of entries that have another name in an event, by their own."""

_TAKEN_APART = frozenset({"group", "second", "what", "drift", "incident", "state"})
"""Fields that are told in another form, below. What else is no field of an event is in its details.
"""


def of_entry(index: int, entry: bytes) -> Event:
    """The event of leaf `index`. One that cannot be read is an event too."""
    try:
        decoded = decode(entry)
    except LeafError:
        time_ms = int.from_bytes(entry[2:10], "big") if len(entry) >= 10 else 0
        return Event(index=index, time_ms=time_ms, stream=ADAPTER, what=UNREADABLE)
    return of_decoded(index, decoded)


def of_decoded(index: int, decoded: Entry) -> Event:
    """The event of a decoded entry."""
    values: dict[str, Any] = {
        "index": index,
        "stream": ADAPTER,
        "what": word(decoded.kind),
        "outcome": OUTCOMES.get(decoded.kind, ""),
    }
    for name, target in _plan_of(decoded):
        value = getattr(decoded, name)
        if target:
            convert = _CONVERTED.get(target)
            values[target] = convert(value) if convert else value
        elif isinstance(value, SigningLeaf):
            for part in _SHARED:
                convert = _CONVERTED.get(part)
                found = getattr(value, part)
                values[part] = convert(found) if convert else found
        elif isinstance(value, SecondKey):
            for part in _SECOND:
                convert = _CONVERTED.get(part)
                found = getattr(value, part)
                values[f"second_{part}"] = convert(found) if convert else found
    values.update(_own(decoded))
    if rest := _details_of(decoded):
        details = ((name, told(name, getattr(decoded, name))) for name in rest)
        values["details"] = {name: value for name, value in details if value != ""}
    return Event(**values)


def word(member: Any) -> str:
    """A member of an enumeration as the command line writes it."""
    text: str = member.name
    return text.lower().replace("_", "-")


def _own(decoded: Entry) -> dict[str, Any]:
    """What is told in another form than it is recorded."""
    match decoded:
        case Proposal():
            return {
                "proposal_id": decoded.what.proposal_id,
                "target": decoded.what.target,
                "digest": decoded.what.digest,
                "subject": word(decoded.what.act),
                "reason": word(decoded.reason) if decoded.reason else "",
                **act_targets.of_proposal(decoded.what.act, decoded.what.target),
            }
        case Admin():
            return act_targets.of_act(decoded.act, decoded.target)
        case Drifted():
            return {"subject": word(decoded.drift), "target": decoded.subject}
        case IncidentLeaf():
            return {"subject": word(decoded.incident), "act": word(decoded.state)}
        case RolloutStep():
            stage = STAGES.get(decoded.stage, str(decoded.stage))
            return {"key_version": decoded.after_version, "subject": stage}
        case _:
            return {}


_SHARED = tuple(field.name for field in fields(SigningLeaf))
Plan = tuple[tuple[str, str], ...]
_plans: dict[int, Plan] = {}
"""By kind; made when the first of its kind is read."""
_rests: dict[int, tuple[str, ...]] = {}
"""Likewise what is among details."""
_SECOND = tuple(field.name for field in fields(SecondKey))


def _plan_of(decoded: Entry) -> Plan:
    """Each field of an entry with the field of an event that it is, empty where it is none."""
    plan = _plans.get(decoded.kind)
    if plan is None:
        renamed = {} if isinstance(decoded, Retired) else _RENAMED
        names = ((field.name, renamed.get(field.name, field.name)) for field in fields(decoded))
        plan = tuple(
            (name, target if target in NAMES and name not in _TAKEN_APART else "")
            for name, target in names
        )
        _plans[decoded.kind] = plan
    return plan


def _details_of(decoded: Entry) -> tuple[str, ...]:
    """Fields of an entry that are none of an event's and not taken apart."""
    rest = _rests.get(decoded.kind)
    if rest is None:
        rest = tuple(
            name for name, target in _plan_of(decoded) if not target and name not in _TAKEN_APART
        )
        _rests[decoded.kind] = rest
    return rest


def _reason(number: int) -> str:
    row = REASONS.get(number)
    return row.name if row else ""


def _algorithm(number: int) -> str:
    row = ALGORITHMS.get(number)
    return row.name if row else ""


_CONVERTED: dict[str, Callable[[Any], Any]] = {
    "algorithm": _algorithm,
    "custody": lambda number: CUSTODY_NAMES.get(number, ""),
    "reason": _reason,
    "act": lambda number: word(Act(number)),
    "names_leaf": lambda number: number - 1 if number else None,
}
"""How a field is told, where it is recorded as a number."""
