"""Which events somebody asks for: conditions on fields, a span of time, and what of it can be told
from bytes alone, before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from capsign_evidence.archive.entry_events import OUTCOMES, word
from capsign_evidence.archive.events import ADAPTER, AGENT, UNREADABLE, Event
from capsign_evidence.leaf_fields import VERSION
from capsign_evidence.leaf_kinds import Act, Kind, ProposedAct

Value = str | int | bytes

FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "workload": ("workload",),
        "tenant": ("tenant",),
        "key": ("key",),
        "version": ("key_version", "second_key_version"),
        "algorithm": ("algorithm", "second_algorithm"),
        "purpose": ("purpose",),
        "context": ("context_digest", "second_context_digest"),
        "grant": ("grant",),
        "caller": ("caller",),
        "intent": ("intent_id",),
        "commitment": ("commitment",),
        "signature": ("signature_hash", "second_signature_hash"),
        "certificate": ("cert_key_hash",),
        "pod": ("pod_uid",),
        "boot": ("boot_id",),
        "handle": ("handle_serial",),
        "what": ("what",),
        "outcome": ("outcome",),
        "reason": ("reason",),
        "actor": ("actor",),
        "act": ("act",),
        "target": ("target",),
        "subject": ("subject",),
    }
)
"""What can be asked for, and the fields of an event in which it may stand."""

OF_AGENTS = frozenset(
    {"workload", "version", "algorithm", "grant", "caller", "intent", "boot", "what", "outcome"}
    | {"reason"}
)
"""What agents' records have; nothing else of them can be asked for."""

_NOT_LITERAL = frozenset({"version", "algorithm", "what", "outcome", "reason", "act", "subject"})
"""What stands in an entry as a number."""

_OF_ENTRIES = frozenset(_NOT_LITERAL | {"workload"})
"""What cannot be looked for in the bytes of a batch; its workload stands beside it."""

EVERYTHING = "*"
"""The target of an act on all there is."""

_REVOCABLE = frozenset({"tenant", "key", "version", "workload", "grant", "handle"})
_WIDE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "admin": frozenset(
            word(act)
            for act in (
                Act.EVERYTHING_REVOKED,
                Act.TENANT_REVOKED,
                Act.KEY_REVOKED,
                Act.REVOCATION_LIFTED,
                Act.TENANT_ERASED,
                Act.PEPPER_GONE,
            )
        ),
        "proposal": frozenset(
            word(act) for act in (ProposedAct.REVOCATION_LIFT, ProposedAct.TENANT_ERASE)
        ),
    }
)
"""Acts, and what is proposed, that are about all that their target has, by the entry's kind."""

_ACTS = frozenset({Kind.ADMIN, Kind.PROPOSAL})
"""Kinds of entries that may be about more than stands in them."""

_KINDS = {word(kind): int(kind) for kind in Kind}
_KNOWN = frozenset(_KINDS.values())

Condition = frozenset[tuple[str, Value]]
"""Alternatives, each what is asked for and its value: an event meets it if it has one of them."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The events that meet all `conditions`, from `since_ms` up to and without `until_ms`, of these
    streams, without those whose `what` is hidden. What cannot be read always counts in, as long as
    its stream does: nobody knows what it is.
    """

    conditions: tuple[Condition, ...] = ()
    since_ms: int = 0
    until_ms: int = 1 << 64
    streams: frozenset[str] = frozenset({ADAPTER, AGENT})
    hidden: frozenset[str] = frozenset()
    _literals: tuple[tuple[bytes, ...], ...] = field(init=False, repr=False)
    _batch_literals: tuple[tuple[bytes, ...], ...] = field(init=False, repr=False)
    _kinds: frozenset[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for condition in self.conditions:
            if not {name for name, _ in condition} <= FIELDS.keys():
                raise ValueError("a condition names what no event has")
        object.__setattr__(self, "_literals", _literals(self.conditions, _NOT_LITERAL))
        object.__setattr__(self, "_batch_literals", _literals(self.conditions, _OF_ENTRIES))
        object.__setattr__(self, "_kinds", _kinds(self.conditions))

    def matches(self, event: Event) -> bool:
        """Whether the event is one of them."""
        if event.stream not in self.streams:
            return False
        if event.what == UNREADABLE:
            return True
        return (
            self.since_ms <= event.time_ms < self.until_ms
            and event.what not in self.hidden
            and all(_met(condition, event) for condition in self.conditions)
        )

    def rules_out(self, entry: bytes) -> bool:
        """Whether this entry's event is certainly none of them; far cheaper than decoding it."""
        if len(entry) < 10 or entry[0] != VERSION or entry[1] not in _KNOWN:
            return False
        if (
            entry[1] not in self._kinds
            or not self.since_ms <= int.from_bytes(entry[2:10], "big") < self.until_ms
        ):
            return True
        return entry[1] not in _ACTS and _lacks(entry, self._literals)

    def rules_out_batch(self, workload: str, batch: bytes) -> bool:
        """Whether no record of this batch is one of them."""
        for condition in self.conditions:
            if not any(
                name in OF_AGENTS and (name != "workload" or value == workload)
                for name, value in condition
            ):
                return True
        return _lacks(batch, self._batch_literals)


def select(wanted: Mapping[str, Iterable[Value]]) -> tuple[Condition, ...]:
    """A condition for each name with values: any of its values meets it. Raises ValueError for a
    name that is not in FIELDS.
    """
    if unknown := wanted.keys() - FIELDS.keys():
        raise ValueError(f"{', '.join(sorted(unknown))} cannot be asked for")
    conditions = (frozenset((name, value) for value in values) for name, values in wanted.items())
    return tuple(condition for condition in conditions if condition)


def _met(condition: Condition, event: Event) -> bool:
    return any(
        getattr(event, where) == value for name, value in condition for where in FIELDS[name]
    ) or (event.what in _WIDE and any(_covers(event, name) for name, _ in condition))


def _covers(event: Event, name: str) -> bool:
    """Whether an act was on all that has this name, or on all of a tenant's or key's: a key cannot
    be used either once its tenant is revoked.
    """
    about = event.act if event.what == "admin" else event.subject
    if about not in _WIDE[event.what]:
        return False
    if event.target == EVERYTHING:
        return name in _REVOCABLE
    if event.key:
        return name == "version" and not event.key_version
    return bool(event.tenant) and name in {"key", "version"}


def _literals(
    conditions: Iterable[Condition], others: frozenset[str]
) -> tuple[tuple[bytes, ...], ...]:
    """For each condition of which every alternative stands in the bytes as it is: those bytes."""
    return tuple(
        tuple(_bytes(value) for _, value in condition)
        for condition in conditions
        if not any(name in others for name, _ in condition)
    )


def _bytes(value: Value) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _lacks(data: bytes, literals: tuple[tuple[bytes, ...], ...]) -> bool:
    for alternatives in literals:
        for literal in alternatives:
            if literal in data:
                break
        else:
            return True
    return False


def _kinds(conditions: Iterable[Condition]) -> frozenset[int]:
    """Kinds of entries that can meet the conditions."""
    kinds = set(_KNOWN)
    for condition in conditions:
        names = {name for name, _ in condition}
        values = {value for _, value in condition}
        if names == {"what"}:
            kinds &= {_KINDS[value] for value in values if value in _KINDS}
        elif names == {"outcome"}:
            kinds &= {kind for kind, outcome in OUTCOMES.items() if outcome in values}
    return frozenset(kinds)
