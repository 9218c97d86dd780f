"""`capsign audit receipt`: the entry of a leaf and its receipt, from an archive."""

from __future__ import annotations

from pathlib import Path

import click

from capsign_cli import numbers, output
from capsign_cli.audit import place
from capsign_cli.failures import REFUSED, UNAVAILABLE, CliError


@click.command()
@place.options
@click.argument("leaf", type=numbers.whole(0))
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    show_default=True,
    help="Directory for LEAF.entry and LEAF.tlog-proof.",
)
@output.option
def receipt(place: str, password_file: Path | None, leaf: int, folder: Path) -> None:
    """Write the entry of a leaf, and the C2SP tlog-proof that shows it to be in the log.

    Whoever has the log's key verifies the two offline.
    """
    from capsign_evidence.merkle import TreeDataError
    from capsign_evidence.proofs import TreeReader
    from capsign_evidence.receipt import SUFFIX, make_receipt

    from capsign_cli.audit.timeline_receipts import covering, tree_size

    with _opened(place, password_file) as archive:
        note = covering(archive.notes(), leaf)
        if note is None:
            size = tree_size(archive.checkpoint() or b"")
            text = f"The newest checkpoint covers {size:,} leaves, and not leaf {leaf}."
            raise CliError(UNAVAILABLE, "NOT_COVERED", text, "Take a newer copy.")
        size = tree_size(note)
        try:
            proof = TreeReader(archive.hashes, size).inclusion(leaf)
        except TreeDataError as error:
            text = f"The archive does not hold what a proof takes: {error}."
            raise CliError(REFUSED, "DAMAGED", text, "Verify it: capsign audit verify.") from error
        (entry,) = archive.entries(leaf, 1)
    folder.mkdir(parents=True, exist_ok=True)
    written = {f"{leaf}.entry": entry, f"{leaf}{SUFFIX}": make_receipt(leaf, proof, note)}
    for name, data in written.items():
        (folder / name).write_bytes(data)
    output.record(
        {"leaf": leaf, "tree_size": size, "files": [str(folder / name) for name in written]}
    )


_opened = place.opened
