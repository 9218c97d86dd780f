"""`capsign audit prove --message FILE`: shows that a message was signed, by whom and when, from an
archive; for a responder, and while the tenant's pepper exists.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import endpoints, output
from capsign_cli.audit import place as evidence
from capsign_cli.audit.commitments import asked_of, commitments_of, message_options
from capsign_cli.failures import REFUSED, USAGE, CliError

if TYPE_CHECKING:
    from capsign_evidence.archive import Archive

    from capsign_cli.audit.commitments import Told

COLUMNS = ("leaf_index", "time", "outcome", "workload", "grant", "algorithm", "intent_id")

MAX_FOUND = 10_000
"""Most entries in one answer."""


@click.command()
@evidence.options
@message_options
@endpoints.adapter_options
@output.option
def prove(place: str, password_file: Path | None, **options: Any) -> None:
    """Show which entries of ARCHIVE say that a message was signed or refused.

    ARCHIVE is the store, a copy of it, or a directory of tiles. An adapter is asked for the
    commitments of the message, as a responder; it gets digests, never the message, and the log says
    that you asked. Once the tenant is erased nobody can be told any more.

    Exit codes: 0 found, 1 not found.
    """
    asked = asked_of(options)
    if asked is None:
        raise CliError(USAGE, "NO_MESSAGE", "Say which message.", "Give it as --message FILE.")
    with evidence.opened(place, password_file) as archive:
        with endpoints.adapter_of(options).channel() as channel:
            told = commitments_of(channel, asked)
        found = entries_of(archive, told)
    if told.incomplete:
        names = ", ".join(told.incomplete)
        text = f"Not every way of these grants was looked for (--transcript, --key-set): {names}"
        click.echo(output.printable(text), err=True)
    output.rows("entries", found, COLUMNS, empty="No entry is of this message.")
    if not found:
        sys.exit(REFUSED)


def entries_of(archive: Archive, told: Told) -> list[dict[str, Any]]:
    """Entries that have one of these commitments, oldest first; at most MAX_FOUND."""
    from capsign_evidence.archive.events import described
    from capsign_evidence.archive.scan import find
    from capsign_evidence.archive.selection import Selection

    ways = told.by_commitment
    selection = Selection((frozenset(("commitment", each) for each in ways),))
    found: list[dict[str, Any]] = []
    for event in islice(find(archive, selection), MAX_FOUND):
        way = ways.get(event.commitment)  # none: what cannot be read is selected too
        if way is not None:
            context = f"{way.protocol}/{way.role}/{way.protocol_version}"
            found.append({**described(event), "leaf_index": event.index, "context": context})
    return found
