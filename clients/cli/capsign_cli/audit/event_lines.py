"""An event as a line: for people, as JSON, or as CSV with a column for each field."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from capsign_cli import output

if TYPE_CHECKING:
    from capsign_evidence.archive.events import Event

_LEFT_OUT = frozenset(
    {"time", "index", "stream", "what", "outcome", "reason", "workload", "actor", "tenant", "key"}
    | {"key_version", "algorithm", "time_ms", "policy_digest", "cert_key_hash", "handle_serial"}
    | {"commitment", "signature_hash", "second_signature_hash", "context_digest", "batch_hash"}
    | {"second_context_digest", "custody", "second_custody", "elapsed_ms", "details"}
)
"""What a line for people says in its own way, or leaves to JSON."""


def header() -> None:
    """The first line of CSV; nothing in other formats."""
    from capsign_evidence.archive.events import NAMES

    if output.is_csv():
        _csv(("time", *NAMES))


def show(event: Event) -> None:
    """Write one event."""
    from capsign_evidence.archive.events import NAMES, described

    plain = described(event)
    if output.is_csv():
        if "details" in plain:
            plain["details"] = json.dumps(plain["details"])
        _csv([plain.get(name, "") for name in ("time", *NAMES)])
    else:
        output.line(plain, text_of(plain))


def text_of(plain: dict[str, Any]) -> str:
    """A line for people of what `described` gives."""
    from capsign_evidence.archive.details import pairs

    key = "/".join(str(plain[name]) for name in ("tenant", "key", "key_version") if plain.get(name))
    said = (
        plain["time"],
        f"{plain['index']:>8}",
        f"{plain['stream']:<7}",
        " ".join(str(plain[name]) for name in ("what", "outcome", "reason") if plain.get(name)),
        plain.get("actor") or plain.get("workload", ""),
        key,
        plain.get("algorithm", ""),
        *(f"{name}={value}" for name, value in plain.items() if name not in _LEFT_OUT),
        *(f"{name}={value}" for name, value in pairs(plain.get("details", {}))),
    )
    return "  ".join(part for part in said if part)


def _csv(values: Any) -> None:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    output.text(line.getvalue())
