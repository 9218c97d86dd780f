"""capsign audit: who signed what, when, and how to prove it, from a copy of the store or from
tiles: without an HSM and without a network.
"""

from __future__ import annotations

import click

from capsign_cli.lazy_group import LazyGroup

COMMANDS: dict[str, tuple[str, str, str]] = {
    "query": (
        "capsign_cli.audit.query",
        "query",
        "What happened: by workload, key, time, outcome, intent and more; both streams.",
    ),
    "watch": (
        "capsign_cli.audit.watch",
        "watch",
        "The same as it happens, an event a line.",
    ),
    "timeline": (
        "capsign_cli.audit.timeline",
        "timeline",
        "What happened and when: in the terminal, or as a page with --html.",
    ),
    "verify": (
        "capsign_cli.audit.verify",
        "verify",
        "That nothing is missing, changed or added: signatures, tree, batches.",
    ),
    "reconcile": (
        "capsign_cli.audit.reconcile",
        "reconcile",
        "What was signed beside what agents report: what is missing, late or made up.",
    ),
    "close": (
        "capsign_cli.audit.close",
        "close",
        "Close an incident that was looked into; the log keeps it.",
    ),
    "export": (
        "capsign_cli.audit.export",
        "export",
        "Everything for a SIEM, a collector or analysts: OCSF, OTLP, Parquet.",
    ),
    "prove": (
        "capsign_cli.audit.prove",
        "prove",
        "Show that a message was signed, by whom and when; for a responder.",
    ),
    "split-view": (
        "capsign_cli.audit.split_view",
        "command",
        "What the split view that an agent kept proves.",
    ),
    "receipt": (
        "capsign_cli.audit.receipt",
        "receipt",
        "An entry, and the proof that it is in the log.",
    ),
}
"""Where each command is, and its line in the help."""


@click.group(cls=LazyGroup, table=COMMANDS)
def audit() -> None:
    """Who signed what, when, provable offline.

    Exit codes: 0 nothing found that should not be there, 1 found, or it does not verify, 2 wrong
    use, 3 unknown, 4 unavailable.
    """
