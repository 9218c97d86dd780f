"""`capsign log export`: the log as files, from a running adapter or from a copy of its store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import endpoints, output
from capsign_cli.audit import place as places
from capsign_cli.failures import REFUSED, UNAVAILABLE, USAGE, CliError

if TYPE_CHECKING:
    from capsign_evidence.archive.copying import Source


@click.command()
@click.argument("target", metavar="DIRECTORY", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--archive",
    metavar="ARCHIVE",
    help="Copy from here instead of from an adapter: a copy of the store, or another directory.",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --archive: file with the password of a postgresql:// URL.",
)
@click.option(
    "--log-key",
    envvar="CAPSIGN_LOG_KEY",
    help="The log's verifier key (name+id+base64); default: the one of --dir.",
)
@endpoints.adapter_options
@output.option
def export(
    target: Path,
    archive: str | None,
    password_file: Path | None,
    log_key: str | None,
    **options: Any,
) -> None:
    """Copy the log into DIRECTORY, as C2SP tlog-tiles names its files, with the agents' batches
    beside them. What was copied before is not copied again.

    The root of what was copied must be the one that the log's key signed: exit code 1 if not.
    """
    if archive is not None:
        with places.opened(archive, password_file) as opened:
            note = opened.checkpoint()
            if note is None:
                text = "The archive has no checkpoint, so nothing says what its log was."
                raise CliError(USAGE, "NO_CHECKPOINT", text, "Copy it from the adapter.")
            _copy(opened, target, note, log_key)
        return
    from capsign_cli.audit.adapter_archive import AdapterArchive

    adapter = endpoints.adapter_of(options)
    with adapter.channel() as channel:
        running = AdapterArchive(channel)
        _copy(running, target, running.newest(), log_key or adapter.log_key)


def _copy(source: Source, directory: Path, note: bytes, log_key: str | None) -> None:
    from capsign_evidence.archive import ArchiveError
    from capsign_evidence.archive.copying import copy_log
    from capsign_evidence.archive.tile_files import TileFiles
    from capsign_evidence.checkpoint import open_checkpoint
    from capsign_evidence.cosignature import parse_key
    from capsign_evidence.note import NoteError

    if not log_key:
        text = "Whose signature should the checkpoint carry?"
        raise CliError(USAGE, "LOG_KEY_MISSING", text, "Give --log-key or CAPSIGN_LOG_KEY.")
    try:
        head = open_checkpoint(note, parse_key(log_key))
    except NoteError as error:
        text = f"The checkpoint is not one of this log: {error}."
        advice = "Do not trust this log until you know why."
        raise CliError(REFUSED, "CHECKPOINT_INVALID", text, advice) from None
    try:
        with output.progress() as say:
            new = copy_log(
                source,
                TileFiles(directory),
                note,
                lambda done, size: say(f"{done} of {size} entries"),
            )
    except ArchiveError as error:
        code, reason = (
            (REFUSED, "EVIDENCE_DOES_NOT_ADD_UP") if error.damaged else (UNAVAILABLE, "DIRECTORY")
        )
        raise CliError(code, reason, error.message, error.advice) from error
    output.record(
        {
            "directory": str(directory),
            "origin": head.origin,
            "leaves": head.size,
            "new": new,
            "root": head.root.hex(),
        }
    )
