"""`capsign log`: the evidence log as an adapter serves it."""

from __future__ import annotations

import click

from capsign_cli.lazy_group import LazyGroup

COMMANDS = {
    "verify": (
        "capsign_cli.log",
        "verify",
        "Recompute the whole log, and hold it against the signed checkpoint.",
    ),
    "export": (
        "capsign_cli.log_export",
        "export",
        "Copy the log into a directory of files (C2SP tlog-tiles).",
    ),
}
"""Where each command is, and its line in the help."""


@click.group(cls=LazyGroup, table=COMMANDS)
def log() -> None:
    """The evidence log."""
