"""`capsign audit watch`: follows evidence that is growing, an event a line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import numbers, output
from capsign_cli.audit import conditions, event_lines, place
from capsign_cli.audit.finding import find
from capsign_cli.audit.verify import ADVICE as INCIDENT
from capsign_cli.failures import REFUSED, USAGE, CliError

if TYPE_CHECKING:
    from capsign_evidence.archive import Archive
    from capsign_evidence.archive.events import Event
    from capsign_evidence.archive.selection import Selection


@click.command()
@place.options
@conditions.options
@conditions.read_all
@click.option("--from-leaf", type=numbers.whole(0), help="Begin at this leaf; default: at the end.")
@click.option(
    "--cursor",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that remembers what was shown: the next run goes on behind it.",
)
@click.option(
    "--every",
    type=numbers.Seconds(0.1, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="End when everything there is was shown.")
@output.option_of("text", "json", "csv")
def watch(
    place: str,
    password_file: Path | None,
    from_leaf: int | None,
    cursor: Path | None,
    every: float,
    once: bool,
    read_all: bool,
    **given: Any,
) -> None:
    """Show events of ARCHIVE as they come: the store of a running adapter, or files that are
    written. Conditions as in `query`. Ctrl-C ends it.

    With --cursor nothing is left out from one run to the next, and what was shown when a run was
    killed may be shown again.
    """
    selection = conditions.selection(given)
    seen = Cursor(cursor) if cursor is not None else None
    with _opened(place, password_file) as archive:
        start = from_leaf if from_leaf is not None else seen.leaf if seen is not None else None
        if start is not None and start > archive.size:
            text = f"It ends at leaf {archive.size}, and leaf {start} was to be next."
            advice = "This is another archive, or an older one: name the right one, or --from-leaf."
            raise CliError(USAGE, "CURSOR_AHEAD", text, advice)
        if start is None:
            start = archive.size
        if seen is not None and seen.leaf is None:
            # before the first look: what comes while this run is killed is the next one's
            seen.move(start)
        event_lines.header()
        wait = None if once else _wait(every)
        for leaf, events in follow(archive, selection, start, wait, summaries=not read_all):
            for event in events:
                event_lines.show(event)
            if seen is not None:
                seen.move(leaf)


_opened = place.opened


def _wait(seconds: float) -> Callable[[], None]:
    return lambda: time.sleep(seconds)


def follow(
    archive: Archive,
    selection: Selection,
    start: int | None,
    wait: Callable[[], None] | None,
    *,
    summaries: bool = True,
) -> Iterator[tuple[int, Iterator[Event]]]:
    """The selected events as they come, in parts, each with the leaf that the next part begins at.
    Takes the first at the archive's end if there is no `start`; `wait` is called before each look
    after the first, and without it there is none. Raises CliError where the log has shrunk.
    """
    leaf = archive.size if start is None else start
    while True:
        size = archive.size
        if size < leaf:
            text = f"The log has shrunk from {leaf} to {size} entries."
            raise CliError(REFUSED, "EVIDENCE_DOES_NOT_ADD_UP", text, INCIDENT)
        if size > leaf:
            yield size, find(archive, selection, leaves=range(leaf, size), summaries=summaries)
            leaf = size
        if wait is None:
            return
        wait()


class Cursor:
    """A file with the leaf that is shown next."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.leaf: int | None = None
        try:
            text = file.read_text().strip()
        except FileNotFoundError:
            return
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            advice = "Name the file that an earlier --cursor wrote, or another one."
            raise CliError(USAGE, "CURSOR_MALFORMED", f"{file} is no cursor.", advice)
        self.leaf = int(text)

    def move(self, leaf: int) -> None:
        """Remember this leaf. A crash leaves the earlier one or this."""
        scratch = self._file.with_name(f".{self._file.name}.{os.getpid()}.new")
        scratch.write_text(f"{leaf}\n")
        scratch.replace(self._file)
        self.leaf = leaf
