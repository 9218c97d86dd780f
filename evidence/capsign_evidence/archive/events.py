"""What happened, one event after another: the adapter's entries and the agents' records in one form
for whoever reads, filters, shows or exports them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

ADAPTER, AGENT = "adapter", "agent"

UNREADABLE = "unreadable"
"""`what` of an entry or record that this program cannot read: a newer one wrote it, or it is
damaged. It is shown, never passed over.
"""

AGENT_BATCH = "agent-batch"
"""`what` of the entry of a batch; the records that it holds are events of their own."""


_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of the log, or one record of an agent. What does not apply is empty or 0.

    `index` is the leaf: for a record, that of the batch it came in. `what` is the kind of the entry
    or record as the command line writes it ("signed", "refused", "identity-issued", "outcome" …).
    `outcome` is done, refused, unknown, unavailable or never. Names of enumerations are those of
    the tables; bytes are as recorded. `time_ms` is of the clock of who wrote it.
    """

    index: int
    time_ms: int
    stream: str
    what: str
    outcome: str = ""
    reason: str = ""
    workload: str = ""
    tenant: str = ""
    key: str = ""
    key_version: int = 0
    algorithm: str = ""
    custody: str = ""
    purpose: str = ""
    context_digest: bytes = b""
    grant: str = ""
    handle_serial: bytes = b""
    cert_key_hash: bytes = b""
    caller: str = ""
    intent_id: bytes = b""
    commitment: bytes = b""
    signature_hash: bytes = b""
    second_key_version: int = 0
    second_algorithm: str = ""
    second_custody: str = ""
    second_context_digest: bytes = b""
    second_signature_hash: bytes = b""
    policy_digest: bytes = b""
    pod_uid: bytes = b""
    boot_id: bytes = b""
    sequence: int = 0
    """Of an agent's record, from 1 in each boot. Of a batch: of its first record."""
    last_sequence: int = 0
    place: int = 0
    """Of a call that an agent's record tells of beside its first: which, from 1."""
    closes: bool = False
    """Of a batch: its last record says that the agent ended in order."""
    batch_hash: bytes = b""
    names_leaf: int | None = None
    """The leaf that an agent's record, or an incident, names."""
    elapsed_ms: int = 0
    handles: int = 0
    verified: int = 0
    failed: int = 0
    actor: str = ""
    act: str = ""
    target: str = ""
    epoch: int = 0
    subject: str = ""
    """What a proposal, drift, incident or rollout is about, in one word."""
    digest: bytes = b""
    proposal_id: bytes = b""
    rollout: bytes = b""
    since_ms: int = 0
    count: int = 0
    details: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    """What only its kind has, by the name it is recorded under, as JSON has it
    (`archive.details`).
    """


_UUIDS = frozenset({"intent_id", "pod_uid", "proposal_id", "rollout"})

NAMES = tuple(field.name for field in fields(Event))
"""All fields in their order, which is that of columns."""


def described(event: Event) -> dict[str, Any]:
    """The event for people and JSON: bytes as hexadecimal or as a UUID, the time as RFC 3339 in UTC
    beside milliseconds; what is empty is left out, but for what every event has.
    """
    plain: dict[str, Any] = {"time": time_text(event.time_ms)}
    for name in NAMES:
        value = getattr(event, name)
        if isinstance(value, bytes):
            value = str(UUID(bytes=value)) if name in _UUIDS and len(value) == 16 else value.hex()
        elif name == "details":
            value = dict(value)
        if value or name == "index" or (name == "names_leaf" and value is not None):
            plain[name] = value
    return plain


def time_text(time_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds; the number where no calendar has it."""
    try:
        at = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(time_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
