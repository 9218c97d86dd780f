"""What a timeline shows, as columns: rows in the order of time, and what is embedded of them.

A column of text is a list of its values and a code for each row, numbers that ascend are
differences: that is what compresses well, and what a search looks through fast.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: calendars end there, in the page and here. What an entry
states is 64 bits, and an agent's clock may say anything.
"""

GROUPS = {
    "incident": "incidents, drift",
    "revocation": "revocations",
    "rollout": "rollout steps",
    "act": "acts of people",
    "refused": "refused",
    "unhappened": "did not happen",
    "signed": "signed",
    "identity": "identities",
    "record": "records of agents",
}
"""Kinds of rows, by the names that colours have in timeline_page.css."""

MARKS = frozenset({"incident", "revocation", "rollout", "act"})
"""Groups whose rows stand out: they are few, and each is shown."""

TITLES = {
    "what": "what",
    "workload": "workload",
    "tenant": "tenant",
    "key": "key",
    "version": "version",
    "algorithm": "algorithm",
    "purpose": "purpose",
    "grant": "grant",
    "outcome": "outcome",
    "reason": "reason",
    "caller": "caller",
    "actor": "actor",
    "target": "target",
    "pod": "pod",
    "boot": "agent's life",
    "context": "context digest",
    "detail": "detail",
    "stream": "told by",
}
"""Columns of text, and how the page calls them."""

HASHES = {"intent": 16, "commitment": 32, "signature_hash": 32}
"""Columns of bytes, and how many of them a row has; zeros: none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `group` is one of GROUPS; texts are empty where there is nothing to say. `leaf` is
    the entry that proves it: for what an agent recorded, that of its batch.
    """

    time_ms: int
    leaf: int
    group: str
    texts: Mapping[str, str]
    intent: bytes = b""
    commitment: bytes = b""
    signature_hash: bytes = b""

    @property
    def what(self) -> str:
        return self.texts.get("what", "")

    def about(self) -> str:
        """What an act is on."""
        text = self.texts.get
        key = "/".join(filter(None, (text("tenant", ""), text("key", ""))))
        named = f"{key} v{text('version')}" if key and text("version") else key
        target = text("target", "")
        subject = named if named and not target.startswith(named) else target
        return " ".join(filter(None, (subject or text("workload", ""), text("detail", ""))))


def who(row: Row) -> str:
    """Whose doing a row is, without the scheme of a SPIFFE ID."""
    name = row.texts.get("actor") or row.texts.get("workload") or ""
    return name.removeprefix("spiffe://")


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a page is made of. `command` prints the receipt of LEAF; `receipts` is what
    `timeline_receipts.gather` gives; `checkpoint` is the text of the newest note.
    """

    origin: str
    size: int
    checkpoint: str
    made_at: str
    filters: str
    command: str
    rows: Sequence[Row]
    receipts: Mapping[str, Any] | None = field(default=None)

    def counts(self) -> Counter[str]:
        """How many rows each group has."""
        return Counter(row.group for row in self.rows)

    def span(self) -> str:
        """From when to when, UTC."""
        if not self.rows:
            return ""
        first, last = clock(self.rows[0].time_ms), clock(self.rows[-1].time_ms)
        return f"{first[:16]} to {last[:16]} UTC"

    def columns(self) -> dict[str, Any]:
        """All but the hashes, for JSON."""
        groups = {name: code for code, name in enumerate(GROUPS)}
        columns = {name: _coded([row.texts.get(name, "") for row in self.rows]) for name in TITLES}
        return {
            "rows": len(self.rows),
            "groups": [{"name": name, "title": title} for name, title in GROUPS.items()],
            "titles": {**TITLES, "intent": "intent", "commitment": "commitment"}
            | {"signature_hash": "signature, SHA-256", "leaf": "leaf", "time": "time"},
            "group": [groups[row.group] for row in self.rows],
            "time": _differences([row.time_ms for row in self.rows]),
            "leaf": _differences([row.leaf for row in self.rows]),
            "columns": columns,
        }

    def hashes(self) -> bytes:
        """The columns of bytes, one after the other."""
        return b"".join(
            getattr(row, name).ljust(width, b"\0")[:width]
            for name, width in HASHES.items()
            for row in self.rows
        )


def short_names(names: Iterable[str]) -> dict[str, str]:
    """SPIFFE IDs as they are told apart among these: the trust domain only where there are several,
    and of a service account in Kubernetes namespace and name.
    """
    known = list(names)
    domains = {one.split("/")[2] for one in known if one.startswith("spiffe://")}
    if len(domains) > 1:
        return {one: one.removeprefix("spiffe://") for one in known}
    return {one: _ACCOUNT.sub(r"\1/\2", _DOMAIN.sub("", one)) for one in known}


_DOMAIN = re.compile(r"^spiffe://[^/]+/")
_ACCOUNT = re.compile(r"^ns/([^/]+)/sa/([^/]+)$")


def clock(time_ms: int) -> str:
    """A time as people read it, UTC, to the millisecond; the last that there is for a later one."""
    at = datetime.fromtimestamp(min(time_ms, LAST_MS) // 1000, UTC)
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{min(time_ms, LAST_MS) % 1000:03}"


def _coded(texts: Sequence[str]) -> dict[str, Any]:
    codes: dict[str, int] = {}
    return {
        "codes": [codes.setdefault(text, len(codes)) for text in texts],
        "values": list(codes),
    }


def _differences(numbers: Sequence[int]) -> list[int]:
    return [*numbers[:1], *(after - before for before, after in pairwise(numbers))]
