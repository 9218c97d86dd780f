"""`capsign audit prove --message FILE`: shows that a message was signed, by whom and when, from an
archive; for a responder, and while the tenant's pepper exists.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import endpoints, output
from capsign_cli.audit import place as evidence
from capsign_cli.audit.commitments import asked_of, commitments_of, message_options
from capsign_cli.failures import DONE, REFUSED, UNKNOWN, USAGE, CliError, predicate

if TYPE_CHECKING:
    from capsign_evidence.archive import Archive

    from capsign_cli.audit.commitments import Told

COLUMNS = ("leaf_index", "time", "outcome", "workload", "grant", "algorithm", "intent_id")

MAX_FOUND = 10_000
"""Most entries in one answer."""


@click.command()
@evidence.options
@message_options
@click.option(
    "--read-all/--summaries",
    default=True,
    show_default=True,
    help="Read every entry, or believe the summaries that the store keeps: faster, and whoever "
    "changed one hides what is there.",
)
@endpoints.adapter_options
@output.option
def prove(place: str, password_file: Path | None, read_all: bool, **options: Any) -> None:
    """Show which entries of ARCHIVE say that a message was signed or refused.

    ARCHIVE is the store, a copy of it, or a directory of tiles. An adapter is asked for the
    commitments of the message, as a responder; it gets digests, never the message, and the log says
    that you asked. Once the tenant is erased nobody can be told any more.

    Exit codes: 0 found, 1 not found, 3 not known: who asks was refused, or nothing was found and
    not everything could be looked for.
    """
    asked = asked_of(options)
    if asked is None:
        raise CliError(USAGE, "NO_MESSAGE", "Say which message.", "Give it as --message FILE.")
    with predicate():
        with evidence.opened(place, password_file) as archive:
            with endpoints.adapter_of(options).channel() as channel:
                told = commitments_of(channel, asked)
            answer = looked_for(archive, told, summaries=not read_all)
        for text in answer.missing:
            click.echo(output.printable(text), err=True)
        output.rows("entries", answer.entries, COLUMNS, empty="No entry is of this message.")
    sys.exit(answer.exit_code)


@dataclass(frozen=True, slots=True)
class Answer:
    """The entries of a message, oldest first and at most MAX_FOUND; and what was not looked for or
    could not be looked at, where more may be.
    """

    entries: Sequence[dict[str, Any]]
    missing: Sequence[str]

    @property
    def exit_code(self) -> int:
        """Found, not found, or not known."""
        if self.entries:
            return DONE
        return UNKNOWN if self.missing else REFUSED


def looked_for(archive: Archive, told: Told, *, summaries: bool = False) -> Answer:
    """Look for entries that have one of these commitments; `summaries` as `scan.find` has it."""
    from capsign_evidence.archive.events import ADAPTER, described
    from capsign_evidence.archive.scan import find
    from capsign_evidence.archive.selection import Selection

    ways = told.by_commitment
    asked = frozenset(("commitment", each) for each in ways)
    selection = Selection((asked,), streams=frozenset({ADAPTER}))
    found: list[dict[str, Any]] = []
    unread = 0
    for event in find(archive, selection, summaries=summaries):
        way = ways.get(event.commitment)
        if way is None:  # what cannot be read is selected too
            unread += 1
        elif len(found) < MAX_FOUND:
            context = f"{way.protocol}/{way.role}/{way.protocol_version}"
            found.append({**described(event), "leaf_index": event.index, "context": context})
    return Answer(found, _missing(told, archive.first, unread))


def _missing(told: Told, first: int, unread: int) -> list[str]:
    """What was not looked for, or not looked at: an entry of the message may be there."""
    names = ", ".join(told.incomplete)
    said = (
        (names, f"Not every way of these grants was looked for (--transcript, --key-set): {names}"),
        (first, f"Leaves before {first:,} were moved away: name their directory too (STORE,DIR)."),
        (unread, f"{unread:,} entries cannot be read: see capsign audit verify."),
    )
    return [text for holds, text in said if holds]
