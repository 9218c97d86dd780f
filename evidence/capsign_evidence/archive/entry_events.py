"""Entries of the log as events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from capsign_wire.algorithms import ALGORITHMS, CUSTODY_NAMES
from capsign_wire.failures import REASONS

from capsign_evidence.archive.events import ADAPTER, NAMES, UNREADABLE, Event
from capsign_evidence.drift_leaf import Drifted
from capsign_evidence.incident_leaf import IncidentLeaf
from capsign_evidence.leaf import Act, Kind, LeafError, ProposedAct, SecondKey, SigningLeaf
from capsign_evidence.leaf_reader import Admin, Entry, Proposal, decode
from capsign_evidence.rollout_leaf import RolloutStep

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
    "what": "",  # a proposal's, taken apart below
}
"""Fields of entries that have another name in an event, by their own."""


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
    return Event(**values)


def word(member: Any) -> str:
    """A member of an enumeration as the command line writes it."""
    text: str = member.name
    return text.lower().replace("_", "-")


def _own(decoded: Entry) -> dict[str, Any]:
    """What is told in another form than it is recorded."""
    match decoded:
        case Proposal():
            destroys = decoded.what.act is ProposedAct.KEY_DESTROY
            return {
                "proposal_id": decoded.what.proposal_id,
                "target": decoded.what.target,
                "digest": decoded.what.digest,
                "subject": word(decoded.what.act),
                "reason": word(decoded.reason) if decoded.reason else "",
                **(_key(decoded.what.target) if destroys else {}),
            }
        case Admin():
            return _subject(decoded.act, decoded.target)
        case Drifted():
            return {"subject": word(decoded.drift), "target": decoded.subject}
        case IncidentLeaf():
            return {"subject": word(decoded.incident), "act": word(decoded.state)}
        case RolloutStep():
            return {"key_version": decoded.after_version, "subject": str(decoded.stage)}
        case _:
            return {}


def _subject(act: Act, target: str) -> dict[str, Any]:
    """The key, tenant, grant or workload that an administrative act was on, under its own name: who
    asks about a key is told that it was revoked, too.
    """
    if act in _OF_KEYS:
        return _key(target)
    name = _OF_OTHERS.get(act)
    return {name: target} if name else {}


def _key(target: str) -> dict[str, Any]:
    """Tenant, key and version of a target that has the form of one or two of those."""
    tenant, *rest = target.split("/")
    if len(rest) == 1:
        return {"tenant": tenant, "key": rest[0]}
    if len(rest) == 2 and rest[1].isdigit():
        return {"tenant": tenant, "key": rest[0], "key_version": int(rest[1])}
    return {}


_OF_KEYS = frozenset(
    {
        Act.KEY_CREATED,
        Act.KEY_PUBLISHED,
        Act.KEY_ACTIVATED,
        Act.KEY_SUSPENDED,
        Act.KEY_RESUMED,
        Act.KEY_DEACTIVATED,
        Act.KEY_COMPROMISED,
        Act.KEY_DESTROYED,
        Act.KEY_GONE,
        Act.KEY_REVOKED,
        Act.KEY_VERSION_REVOKED,
        Act.KEY_MOVE_REFUSED,
    }
)
_OF_OTHERS = {
    Act.GRANT_REVOKED: "grant",
    Act.WORKLOAD_REVOKED: "workload",
    Act.TENANT_REVOKED: "tenant",
}

_SHARED = tuple(field.name for field in fields(SigningLeaf))
Plan = tuple[tuple[str, str], ...]
_plans: dict[int, Plan] = {}
"""By kind; made when the first of its kind is read."""
_SECOND = tuple(field.name for field in fields(SecondKey))


def _plan_of(decoded: Entry) -> Plan:
    """Each field of an entry with the field of an event that it is, empty where it is none."""
    plan = _plans.get(decoded.kind)
    if plan is None:
        names = ((field.name, _RENAMED.get(field.name, field.name)) for field in fields(decoded))
        plan = tuple((name, target if target in NAMES else "") for name, target in names)
        _plans[decoded.kind] = plan
    return plan


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
