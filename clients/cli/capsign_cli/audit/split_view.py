"""`capsign audit split-view`: what a file that an agent kept proves.

The agent's own words are not believed: signatures and proofs are verified anew, and with an archive
at hand the log itself decides between two trees that no proof joins.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from capsign_evidence.archive import ArchiveError, open_archive
from capsign_evidence.merkle import TreeDataError
from capsign_evidence.note import NoteError, VerifierKey
from capsign_evidence.proofs import TreeReader
from capsign_evidence.split_view import Finding, SplitView, judge

from capsign_cli import output
from capsign_cli.failures import REFUSED, UNAVAILABLE, UNKNOWN, USAGE, CliError

if TYPE_CHECKING:
    from capsign_evidence.checkpoint import TreeHead

_SENTENCES = {
    Finding.NOTHING: "It proves nothing: one tree extends the other, or the key signed only one.",
    Finding.TWO_TREES: "The log's key signed two different trees of one size.",
    Finding.NOT_IN_LOG: "The log's key signed a tree that this log does not hold.",
    Finding.UNDECIDED: (
        "The log's key signed both, and no proof joins them. Give an archive of the log, which "
        "decides, or a larger one."
    ),
    Finding.WITHHELD: (
        "The adapter told of a signature that this log has, and showed the agent a log that ends "
        "before it."
    ),
}
_EXIT_CODES = {Finding.NOTHING: 0, Finding.UNDECIDED: UNKNOWN}


@click.command("split-view")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("archive", required=False)
@click.option("--log-key", help="The log's verifier key; default: the one that the agent believed.")
@output.option
@click.pass_context
def command(context: click.Context, file: Path, archive: str | None, log_key: str | None) -> None:
    """What FILE, a split view that an agent kept, proves against the holder of the log's key.
    ARCHIVE is a copy of the store, or the log's tiles.

    Exit codes: 0 it proves nothing, 1 it proves that the log showed two histories, 3 only the log
    can tell.
    """
    try:
        split = SplitView.parse(file.read_bytes())
        key = VerifierKey.parse(log_key or split.log_key)
    except (ValueError, NoteError) as error:
        text = f"{file} cannot be judged: {error}."
        advice = "Name a file split-view-….json of an agent's directory `witness`."
        raise CliError(USAGE, "FILE", text, advice) from None
    finding = judge(split, key, _roots(archive))
    seen, shown = split.heads(key)
    output.record(
        {
            "finding": finding.name.lower(),
            "meaning": _SENTENCES[finding],
            "adapter": split.adapter,
            "found": datetime.fromtimestamp(split.found_ms / 1000, UTC).isoformat(),
            "fault": split.fault.name.lower(),
            "log_key": key.text(),
            "seen": _told(seen),
            "shown": _told(shown),
            "told": split.told,
        }
    )
    context.exit(_EXIT_CODES.get(finding, REFUSED))


def _told(head: TreeHead | None) -> str:
    return f"{head.size} leaves, root {head.root.hex()}" if head is not None else "not signed by it"


def _roots(place: str | None) -> Callable[[int], bytes | None]:
    """Returns the root of the log in an archive, by its number of leaves."""
    if place is None:
        return lambda _: None
    try:
        archive = open_archive(place)
    except ArchiveError as error:
        raise _unreadable(error) from None

    def root(size: int) -> bytes | None:
        try:
            return TreeReader(archive.hashes, size).root() if size <= archive.size else None
        except ArchiveError as error:
            raise _unreadable(error) from None
        except TreeDataError as error:
            raise CliError(UNAVAILABLE, "ARCHIVE", f"{error}.", "Take another copy.") from None

    return root


def _unreadable(error: ArchiveError) -> CliError:
    return CliError(UNAVAILABLE, "ARCHIVE", error.message, error.advice)
