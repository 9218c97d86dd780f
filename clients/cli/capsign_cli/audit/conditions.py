"""The options that say which events are asked for, and the selection that they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from capsign_cli.audit.parameters import HASH, MOMENT, NAME, SPIFFE, UUID_TYPE
from capsign_cli.failures import USAGE, CliError

if TYPE_CHECKING:
    from capsign_evidence.archive.selection import Selection

_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
_KEY = re.compile(rf"(?:({_NAME})/)?({_NAME})|({_NAME})/({_NAME})/([1-9][0-9]{{0,9}})")
"""A key, of a tenant, and a version of it."""

Command = TypeVar("Command", bound=Callable[..., Any])

STREAMS = ("adapter", "agent")

_ASKED: tuple[tuple[str, Any, str], ...] = (
    ("workload", SPIFFE, "SPIFFE ID."),
    ("tenant", NAME, "Tenant."),
    ("purpose", NAME, "Purpose."),
    ("algorithm", str, "Algorithm, as policies name it."),
    ("grant", NAME, "Grant."),
    ("caller", str, "The agent's socket."),
    ("intent", UUID_TYPE, "Intent id."),
    ("context", HASH, "SHA-256 of a context."),
    ("commitment", HASH, "Commitment to a message."),
    ("signature", HASH, "SHA-256 of a signature."),
    ("pod", UUID_TYPE, "A pod's uid: its certificates, and what they signed."),
    ("certificate", HASH, "SHA-256 of a certificate's SubjectPublicKeyInfo."),
    ("boot", UUID_TYPE, "One start of an agent."),
    ("handle", UUID_TYPE, "Serial of a handle."),
    ("what", str, "signed, refused, admin, identity-issued, outcome, incident …"),
    ("outcome", str, "done, refused, unknown, unavailable or never."),
    ("reason", str, "Why something was refused, as RATE_LIMITED."),
    ("actor", str, "SPIFFE ID of whoever changed something."),
    ("act", str, "An administrative act, as key-revoked."),
    ("target", str, "What it was on."),
    ("subject", str, "Kind of an incident, a difference or a proposal."),
)
"""What can be asked for by its own option, its type, and its line in the help."""


def options(command: Command) -> Command:
    """All conditions; they arrive as keyword arguments, for `selection` to take."""
    for name, kind, text in reversed(_ASKED):
        option = click.option(f"--{name}", type=kind, multiple=True, help=text)
        command = option(command)
    key = click.option("--key", metavar="[TENANT/]KEY[/VERSION]", help="A key, or a version of it.")
    since = click.option("--since", type=MOMENT, help="From this time on: RFC 3339, or 2h.")
    until = click.option("--until", type=MOMENT, help="Up to this time, and without it.")
    stream = click.option(
        "--stream", type=click.Choice(STREAMS), help="Only what the adapter, or agents, recorded."
    )
    batches = click.option(
        "--batches", is_flag=True, help="Also the adapter's entries about agents' batches."
    )
    return since(until(key(stream(batches(command)))))


def read_all(command: Command) -> Command:
    """`--read-all`, which arrives as `read_all`."""
    return click.option(
        "--read-all",
        is_flag=True,
        help="Read every entry, and believe none of the summaries that the store keeps.",
    )(command)


def selection(given: Mapping[str, Any]) -> Selection:
    """What the options mean. Raises CliError for a name that no table has."""
    from capsign_evidence.archive.events import AGENT_BATCH
    from capsign_evidence.archive.selection import Selection, select

    wanted: dict[str, list[Any]] = {name: list(given[name]) for name, _, _ in _ASKED}
    if given["key"]:
        for name, value in _key(given["key"]).items():
            if wanted.get(name) not in (None, [], [value]):
                raise _wrong("--key and --tenant name two tenants.", "Give one of them.")
            wanted[name] = [value]
    wanted["reason"] = [reason.upper().replace("-", "_") for reason in wanted["reason"]]
    for name, known in _tables().items():
        for value in wanted[name]:
            if value not in known:
                raise _wrong(f"{value!r} is no {name}.", f"There are: {', '.join(sorted(known))}.")
    hidden = frozenset() if given["batches"] or AGENT_BATCH in wanted["what"] else {AGENT_BATCH}
    return Selection(
        select(wanted),
        since_ms=given["since"] or 0,
        until_ms=1 << 64 if given["until"] is None else given["until"],
        streams=frozenset({given["stream"]} if given["stream"] else STREAMS),
        hidden=frozenset(hidden),
    )


def _key(text: str) -> dict[str, Any]:
    found = _KEY.fullmatch(text)
    if found is None:
        raise _wrong(f"{text!r} is no key.", "A key is KEY, TENANT/KEY or TENANT/KEY/VERSION.")
    named: dict[str, Any] = {"tenant": found[1] or found[3], "key": found[2] or found[4]}
    named["version"] = int(found[5]) if found[5] else None
    return {name: value for name, value in named.items() if value is not None}


def _tables() -> dict[str, set[str]]:
    """The names that enumerations have."""
    from capsign_evidence.archive.entry_events import word
    from capsign_evidence.archive.events import UNREADABLE
    from capsign_evidence.archive.record_events import KINDS, OUTCOMES
    from capsign_evidence.leaf_kinds import Act, Kind
    from capsign_wire.algorithms import BY_NAME
    from capsign_wire.failures import REASONS

    return {
        "what": {*map(word, Kind), *KINDS.values(), UNREADABLE},
        "outcome": {*OUTCOMES.values(), "never"},
        "reason": {row.name for row in REASONS.values()},
        "algorithm": set(BY_NAME),
        "act": {*map(word, Act), "found", "ended"},
    }


def _wrong(message: str, advice: str) -> CliError:
    return CliError(USAGE, "USAGE", message, advice)
