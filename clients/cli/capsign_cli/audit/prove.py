"""`capsign audit prove --message FILE`: shows that a message was signed, by whom and when, from an
archive; for a responder, and while the tenant's pepper exists.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import endpoints, output
from capsign_cli.audit.commitments import asked_of, commitments_of, message_options
from capsign_cli.failures import REFUSED, USAGE, CliError

if TYPE_CHECKING:
    from capsign_evidence.archive import Archive

    from capsign_cli.audit.commitments import Told

COLUMNS = ("leaf_index", "time", "outcome", "workload", "grant", "algorithm", "intent_id")

MAX_FOUND = 10_000
"""Most entries in one answer."""


@click.command()
@click.argument("place", metavar="ARCHIVE")
@message_options
@endpoints.adapter_options
@output.option
def prove(place: str, **options: Any) -> None:
    """Show which entries of ARCHIVE say that a message was signed or refused.

    ARCHIVE is the store, a copy of it, or a directory of tiles. An adapter is asked for the
    commitments of the message, as a responder; it gets digests, never the message, and the log says
    that you asked. Once the tenant is erased nobody can be told any more.

    Exit codes: 0 found, 1 not found.
    """
    from capsign_evidence.archive import open_archive

    asked = asked_of(options)
    if asked is None:
        raise CliError(USAGE, "NO_MESSAGE", "Say which message.", "Give it as --message FILE.")
    with open_archive(place) as archive:
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
    from capsign_evidence.archive.entry_events import of_entry
    from capsign_evidence.archive.events import described

    found: list[dict[str, Any]] = []
    wanted, first = told.by_commitment, archive.first
    for index, entry in enumerate(archive.entries(first, archive.size - first), first):
        if not any(entry[place] in wanted for place in _PLACES):
            continue
        event = of_entry(index, entry)
        way = wanted.get(event.commitment)
        if way is not None:
            context = f"{way.protocol}/{way.role}/{way.protocol_version}"
            found.append({**described(event), "leaf_index": index, "context": context})
        if len(found) >= MAX_FOUND:
            break
    return found


_PLACES = (slice(-64, -32), slice(-34, -2), slice(-134, -102))
"""Where entries of the kinds signed, refused and signed twice have their commitment, from their
end: most entries need not be decoded.
"""
