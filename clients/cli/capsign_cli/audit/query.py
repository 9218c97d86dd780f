"""`capsign audit query`: what happened, from both streams."""

from __future__ import annotations

import shlex
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import numbers, output
from capsign_cli.audit import conditions, event_lines
from capsign_cli.audit import place as places
from capsign_cli.audit.finding import find
from capsign_cli.failures import USAGE, CliError

if TYPE_CHECKING:
    from capsign_evidence.archive.scan import Looked


@click.command()
@places.options_or_adapter
@conditions.options
@click.option(
    "--message",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Not here: `capsign audit prove` asks an adapter for a message's commitments.",
)
@click.option("--limit", type=numbers.whole(1), help="End after so many events.")
@conditions.read_all
@output.option_of("text", "json", "csv")
def query(
    place: str | None,
    password_file: Path | None,
    message: Path | None,
    limit: int | None,
    read_all: bool,
    **given: Any,
) -> None:
    """Who signed what, when; what was refused, by adapters and in pods; what was changed, and by
    whom. In the order of the log.

    ARCHIVE is the store's file or a copy of it, the postgresql:// URL of a store, a directory of
    tiles, or a store and, after a comma, the directory that its first leaves were moved to.

    Without ARCHIVE a running adapter is asked, for as long as you believe it: for summaries of the
    log, and for the entries that they do not rule out.

    Give an option several times for any of several values; different options must all hold. What a
    pod itself refused is found too, also by --tenant, --key and --pod, which the policies and
    certificates in ARCHIVE say of it. With -o json each line is one event.
    """
    from capsign_evidence.archive.scan import Looked

    if message is not None:
        text = "Only who holds the tenant's pepper can tell which commitment a message has."
        advice = (
            f"Run: capsign audit prove {places.named(place) if place else 'ARCHIVE'} "
            f"--message {shlex.quote(str(message))} --tenant TENANT"
        )
        raise CliError(USAGE, "PEPPER_NEEDED", text, advice)
    selection = conditions.selection(given)
    looked = Looked(0, 0, 0)
    found = 0
    with _opened(place, password_file, given) as archive, output.progress() as say:

        def tell(now: Looked) -> None:
            nonlocal looked
            looked = now
            say(f"{now.through} of {now.size} entries, {found} events")

        every = find(archive, selection, summaries=not read_all, tell=tell)
        event_lines.header()
        for event in islice(every, limit):
            if sys.stdout.isatty():
                say("")
            event_lines.show(event)
            found += 1
    if not (output.is_json() or output.is_csv()):
        more = " (and perhaps more)" if limit == found else ""
        told = f"{found} events{more}; {looked.read} of {looked.size} entries were read"
        click.echo(f"{told}.", err=True)


_opened = places.opened_or_running
