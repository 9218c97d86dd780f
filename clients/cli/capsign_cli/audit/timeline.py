"""`capsign audit timeline`: who signed what and when, with what stands out, as one page or in the
terminal.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import output
from capsign_cli.audit import conditions
from capsign_cli.audit import place as places
from capsign_cli.audit.finding import find
from capsign_cli.failures import USAGE, CliError

if TYPE_CHECKING:
    from capsign_evidence.archive import Archive
    from capsign_evidence.archive.events import Event

    from capsign_cli.audit.timeline_data import Timeline

ROWS = 100_000
MOST_ROWS = 500_000
"""How many rows a page has if nobody says, and at most: half a million are 60 MB."""

LANES = ("workload", "tenant", "key", "grant", "purpose", "algorithm", "reason", "pod", "actor")
_COLOURS = {
    "incident": "red",
    "revocation": "magenta",
    "rollout": "green",
    "act": "blue",
    "refused": "yellow",
}


@click.command()
@places.options
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write one self-contained page to this file, for a browser or a printer.",
)
@click.option(
    "--rows",
    "most",
    type=click.IntRange(1, MOST_ROWS),
    default=ROWS,
    show_default=True,
    help="Most events that are shown; if more match, none are.",
)
@click.option(
    "--by",
    type=click.Choice(LANES),
    default="workload",
    show_default=True,
    help="What each lane is of, in the terminal.",
)
@conditions.options
@conditions.read_all
@output.option
def timeline(
    place: str,
    password_file: Path | None,
    page: Path | None,
    most: int,
    by: str,
    read_all: bool,
    **given: Any,
) -> None:
    """Who signed what and when, with rollouts, revocations and incidents marked.

    ARCHIVE is a copy of the store's file, or the postgresql:// URL of a store. The page of --html
    needs no network and holds everything that matches; each row names the entry that proves it.
    The conditions are those of `capsign audit query`.
    """
    from capsign_evidence.archive.scan import Looked

    selection = conditions.selection(given)
    with _opened(place, password_file) as archive, output.progress() as say:

        def tell(now: Looked) -> None:
            say(f"{now.through:,} of {now.size:,} entries")

        found = find(archive, selection, summaries=not read_all, tell=tell)
        made = make(archive, found, most, _conditions_in_words(given), place)
    if page is None:
        show(made, by)
        return
    write_page(made, page)
    output.line({"page": str(page), "rows": len(made.rows)}, f"Wrote {page}.")


_opened = places.opened


def _conditions_in_words(given: Mapping[str, Any]) -> str:
    """What was asked for, to stand on the page."""
    from capsign_cli.audit.timeline_data import clock

    parts = []
    for name, value in given.items():
        if name in {"since", "until"}:
            parts += [f"{name} {clock(value)} UTC"] if value is not None else []
        elif isinstance(value, tuple):
            parts += [f"{name} {one.hex() if isinstance(one, bytes) else one}" for one in value]
        elif value:
            parts.append(name if value is True else f"{name} {value}")
    return ", ".join(parts)


def make(archive: Archive, found: Iterable[Event], most: int, filters: str, place: str) -> Timeline:
    """The timeline of these events. Raises CliError if they are more than `most`: a page that
    leaves some out would not be what happened.
    """
    from capsign_cli.audit import timeline_receipts
    from capsign_cli.audit.timeline_data import Timeline
    from capsign_cli.audit.timeline_events import rows_of

    notes = archive.notes()
    note = next(iter(notes), None)
    rows = list(islice(rows_of(found), most + 1))
    if len(rows) > most:
        text = f"More than {most:,} events match."
        raise CliError(USAGE, "TOO_MANY", text, "Narrow it by --since and others, or raise --rows.")
    rows.sort(key=lambda row: (row.time_ms, row.leaf))
    return Timeline(
        origin=archive.origin or "a log without a checkpoint",
        size=archive.size,
        checkpoint=(note or b"").decode("utf-8", "replace"),
        made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        filters=filters,
        command=f"capsign audit receipt {places.named(place)} LEAF",
        rows=rows,
        receipts=timeline_receipts.gather(
            archive,
            (row.leaf for row in rows),
            timeline_receipts.covering(notes, max((row.leaf for row in rows), default=0)) or note,
        ),
    )


def write_page(timeline: Timeline, page: Path) -> None:
    """Write the page in whole or not at all: the file has its name when it is complete."""
    from capsign_cli.audit.timeline_page import render

    partial = page.with_name(f".{page.name}.{os.getpid()}")
    try:
        partial.write_text(render(timeline), encoding="utf-8")
        partial.replace(page)
    finally:
        partial.unlink(missing_ok=True)


def show(timeline: Timeline, by: str) -> None:
    """In the terminal, as wide as it is; without one 100 columns and no colour."""
    from capsign_cli.audit.timeline_text import FINE, PLAIN, lanes_of, lines

    if output.is_json():
        output.record(_values(timeline, lanes_of(timeline.rows, by, 120).values()))
        return
    fine = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100
    for text in lines(timeline, by, width, FINE if fine else PLAIN, _paint()):
        click.echo(text)


def _values(timeline: Timeline, lanes: dict[str, Any]) -> dict[str, Any]:
    from capsign_cli.audit.timeline_data import MARKS, clock

    marked = [
        {"time": clock(row.time_ms), "leaf": row.leaf, "group": row.group, **row.texts}
        for row in timeline.rows
        if row.group in MARKS
    ]
    counts = dict(timeline.counts())
    return {"origin": timeline.origin, "rows": len(timeline.rows), "groups": counts} | {
        **lanes,
        "stands_out": marked,
    }


def _paint() -> Callable[[str, str], str]:
    """What colours a text by its group, if a person looks and has not said NO_COLOR."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return lambda text, _: text
    return lambda text, group: click.style(text, fg=_COLOURS.get(group))
