"""Events as rows of a timeline: which group each belongs to, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from uuid import UUID

from capsign_evidence.archive.details import pairs
from capsign_evidence.archive.events import AGENT, UNREADABLE, Event

from capsign_cli.audit.timeline_data import LAST_MS, Row

_GROUPS = {
    UNREADABLE: "incident",
    "incident": "incident",
    "drift": "incident",
    "split-view": "incident",
    "rollout-step": "rollout",
    "admin": "act",
    "proposal": "act",
    "signed": "signed",
    "signed-twice": "signed",
    "refused": "refused",
    "refused-unbound": "refused",
    "identity-refused": "refused",
    "never": "unhappened",
    "identity-issued": "identity",
    "identity-renewed": "identity",
}
"""By the kind of an entry or record; all others are records."""

_REVOCATIONS = ("-revoked", "revocation-lifted")
_OF_AGENTS = {"refused": "refused", "unknown": "unhappened", "unavailable": "unhappened"}


def rows_of(events: Iterable[Event]) -> Iterator[Row]:
    """The row of each event.

    What an agent says came of a call is a refusal of its own only if the adapter has not told the
    same before: otherwise each would count twice.
    """
    told: set[bytes] = set()
    for event in events:
        group = _GROUPS.get(event.what, "record")
        if event.stream != AGENT:
            if event.what == "admin" and event.act.endswith(_REVOCATIONS):
                group = "revocation"
            if group in {"refused", "unhappened"}:
                told.add(event.intent_id)
        elif event.what == "outcome" and event.intent_id not in told:
            group = _OF_AGENTS.get(event.outcome, "record")
        yield _row(event, group)


def _row(event: Event, group: str) -> Row:
    texts = {
        "what": _what(event),
        "workload": event.workload,
        "tenant": event.tenant,
        "key": event.key,
        "version": _versions(event),
        "algorithm": " + ".join(filter(None, (event.algorithm, event.second_algorithm))),
        "purpose": event.purpose,
        "grant": event.grant,
        "outcome": event.outcome,
        "reason": event.reason,
        "caller": event.caller,
        "actor": event.actor,
        "target": event.target,
        "pod": str(UUID(bytes=event.pod_uid)) if len(event.pod_uid) == 16 else "",
        "boot": event.boot_id.hex(),
        "context": event.context_digest.hex(),
        "detail": _detail(event),
        "stream": event.stream,
    }
    return Row(
        min(event.time_ms, LAST_MS),
        event.index,
        group,
        {name: text for name, text in texts.items() if text},
        event.intent_id,
        event.commitment,
        event.signature_hash,
    )


def _what(event: Event) -> str:
    """The act where it is one, and else the kind."""
    if event.what == "incident":
        return f"{event.subject} ended" if event.act == "ended" else event.subject
    return event.act or event.what


def _versions(event: Event) -> str:
    numbers = (event.key_version, event.second_key_version)
    return " + ".join(str(number) for number in numbers if number)


def _detail(event: Event) -> str:
    """What only some kinds of events have, in words."""
    parts = (
        (event.what in {"proposal", "drift"}, event.subject),
        (event.sequence, f"record {event.sequence}"),
        (event.last_sequence > event.sequence, f"to {event.last_sequence}"),
        (event.closes, "the last of its life"),
        (event.names_leaf is not None, f"names leaf {event.names_leaf}"),
        (event.elapsed_ms, f"took {event.elapsed_ms} ms"),
        (event.handles, f"{event.handles} handles"),
        (event.verified, f"{event.verified} verified"),
        (event.failed, f"{event.failed} failed"),
        (event.count, f"{event.count} of them"),
        (event.rollout, f"rollout {event.rollout.hex()}"),
        (event.proposal_id, f"proposal {event.proposal_id.hex()}"),
        (event.epoch, f"epoch {event.epoch}"),
        *((True, f"{name} {value}") for name, value in pairs(event.details)),
        (event.time_ms > LAST_MS, f"states {event.time_ms} ms, which no calendar has"),
    )
    return ", ".join(text for holds, text in parts if holds)
