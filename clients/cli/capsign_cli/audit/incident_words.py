"""Incidents in words: what each kind means, and what to do about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from capsign_evidence.reconcile.incidents import Incident

MEANINGS = {
    "signed-not-reported": (
        "Signed with a certificate whose agent did not ask for it. Revoke the workload; find out "
        "who has its key."
    ),
    "reported-not-signed": (
        "An agent names an entry that is not the signature's: it lies, or the log was changed or "
        "rolled back. Run `capsign audit verify`."
    ),
    "gap": "An agent's records are missing: a journal was tampered with, or the log rolled back.",
    "cut-tail": "An agent ended without a last record: its node was lost, or its tail cut off.",
    "late": "Signed, and not reported yet. It ends when the agent is heard of.",
    "unknown-key-object": "The token holds an object that nothing accounts for: `capsign drift`.",
    "signature-without-leaf": (
        "A signature that no entry is about: made beside the adapter, or after this archive ends."
    ),
    "silence": "An agent that has not ended says nothing: gone without a word, or cut off.",
    "split-view": "An agent saw two logs: run `capsign audit split-view` on the file that it kept.",
    "forged-chain": "A batch does not continue its chain: two stories of one agent's life.",
    "replayed-batch": "A batch stands in the log again, or as another workload's.",
    "batch-lost": "An agent's batch is not as the log names it: it was changed or deleted.",
    "rolled-back": "The log is older than what it has shown to others: an old copy was restored.",
    "incidents-forgotten": (
        "So many were found beside too many others, and are known by number alone: close what was "
        "looked into, and read the log from this leaf on with `capsign audit timeline`."
    ),
}
"""By kind; docs/operations/incident.md has more."""


def of(incident: Incident) -> dict[str, Any]:
    """An incident as the command line shows it."""
    from capsign_evidence.incident_leaf import PASSING

    kind = incident.kind.name.lower().replace("_", "-")
    leaf = incident.leaf_index_plus_one
    return {
        "incident": kind,
        "workload": incident.workload,
        "boot": incident.boot_id.hex(),
        "digest": incident.digest.hex(),
        "intent": str(UUID(bytes=incident.intent_id)) if incident.intent_id else "",
        "leaf": leaf - 1 if leaf else None,
        "first": incident.first,
        "last": incident.last,
        "count": incident.count,
        "since": datetime.fromtimestamp(incident.since_ms / 1000, UTC).isoformat(),
        "passes": incident.kind in PASSING,
        "meaning": MEANINGS[kind],
    }
