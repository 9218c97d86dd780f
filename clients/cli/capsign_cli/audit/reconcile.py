"""`capsign audit reconcile`: what was signed, held against what agents report and what others hold.

Exit code 0: everything adds up; 1: an incident stands that does not pass by itself; 3: it is not
known; 4: archive or adapter could not be reached.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import endpoints, output
from capsign_cli.audit import handed_in, incident_words, place
from capsign_cli.failures import REFUSED, UNKNOWN, predicate

if TYPE_CHECKING:
    from capsign_evidence.reconcile.at_rest import Findings
    from capsign_wire.adapter.v1 import inventory_pb2 as pb

SECONDS = 30
AT_ONCE = 64
"""Signatures in one report: the bound of the message."""
COLUMNS = ("incident", "workload", "leaf", "count", "since", "meaning")

_seconds = click.IntRange(1, 2_592_000)


@click.command()
@click.argument("where", metavar="[ARCHIVE]", required=False)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the password of a postgresql:// URL.",
)
@click.option(
    "--signatures",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File of signatures that relying parties hold, a line each: compact JWS, base64, or "
    "SHA-256 in hexadecimal. Each must have its entry.",
)
@click.option(
    "--report",
    is_flag=True,
    help="Tell an adapter of those without an entry: each becomes an incident in its log. Role: "
    "responder.",
)
@click.option(
    "--report-seconds", type=_seconds, default=300, show_default=True, help="After that: late."
)
@click.option(
    "--silence-seconds", type=_seconds, default=3600, show_default=True, help="After that: silence."
)
@click.option(
    "--cut-tail-seconds",
    type=_seconds,
    default=86_400,
    show_default=True,
    help="After that: a cut tail.",
)
@endpoints.adapter_options
@output.option
def reconcile(
    where: str | None,
    password_file: Path | None,
    signatures: Path | None,
    report: bool,
    report_seconds: int,
    silence_seconds: int,
    cut_tail_seconds: int,
    **options: Any,
) -> None:
    """Hold the adapter's entries against the agents' records, and against what others hold.

    ARCHIVE is a copy of the store's file, the postgresql:// URL of a store, or a directory of
    tiles: no adapter, no HSM, no network. Without it an adapter is asked which incidents it knows
    of.

    Exit code 1: an incident stands that does not pass by itself; 3: not known.
    """
    if report and signatures is None:
        raise click.UsageError("--report is about --signatures: name their file.")
    if where is None:
        if signatures is not None:
            raise click.UsageError("--signatures are looked for in an ARCHIVE: name one.")
        with predicate():
            _running(options)
        return
    from capsign_evidence.incident_leaf import IncidentKind
    from capsign_evidence.reconcile.at_rest import reconcile as held_against
    from capsign_evidence.reconcile.timing import Timing

    try:
        timing = Timing(report_seconds * 1000, silence_seconds * 1000, cut_tail_seconds * 1000)
    except ValueError as error:
        raise click.UsageError(f"The times must be in order: {error}.") from None
    handed = list(handed_in.hashes(signatures)) if signatures is not None else []
    with place.opened(where, password_file) as archive, output.progress() as say:
        found = held_against(
            archive, timing, handed, lambda done, size: say(f"{done} of {size} entries")
        )
    if report:
        _report(
            [
                one.digest
                for one in found.standing
                if one.kind is IncidentKind.SIGNATURE_WITHOUT_LEAF
            ],
            options,
        )
    _tell(found, len(handed))


def _report(hashes: Sequence[bytes], options: dict[str, Any]) -> None:
    """File an incident for each."""
    from capsign_wire.adapter.v1 import inventory_pb2, inventory_pb2_grpc

    filed = 0
    with endpoints.adapter_of(options).channel() as channel:
        stub = inventory_pb2_grpc.InventoryServiceStub(channel)
        for at in range(0, len(hashes), AT_ONCE):
            request = inventory_pb2.ReportSignaturesRequest(
                signature_hashes=hashes[at : at + AT_ONCE]
            )
            filed += stub.ReportSignatures(request, timeout=SECONDS).filed
    click.echo(f"{filed} incidents were filed with the adapter.", err=True)


def _tell(found: Findings, handed: int) -> None:
    values = [
        incident_words.of(one) | {"told_by_adapter": one.key in found.told}
        for one in found.standing
    ]
    read = {
        "first": found.first,
        "through": found.through,
        "unreadable": list(found.unreadable),
        "handed_in": handed,
        "untold": found.untold,
        "unjudged": found.unjudged,
    }
    known = not (found.unreadable or found.untold or found.unjudged)
    what = "Everything adds up" if known else "No incident stands"
    _shown(values, read, f"{what}: {found.through - found.first} entries were read.")
    if found.unreadable and not output.is_json():
        click.echo(
            f"{len(found.unreadable)} entries could not be read; see `capsign audit verify`.",
            err=True,
        )
    if (found.untold or found.unjudged) and not output.is_json():
        click.echo(
            f"Not everything is known: {found.untold} incidents beside too many others, "
            f"{found.unjudged} signatures beside too many that were open at once.",
            err=True,
        )
    _end(values, known=known)


def _running(options: dict[str, Any]) -> None:
    from capsign_wire.adapter.v1 import inventory_pb2, inventory_pb2_grpc

    with endpoints.adapter_of(options).channel() as channel:
        stub = inventory_pb2_grpc.InventoryServiceStub(channel)
        answer: pb.ListIncidentsResponse = stub.ListIncidents(
            inventory_pb2.ListIncidentsRequest(), timeout=SECONDS
        )
    values = [
        incident_words.of(_incident(one)) | {"entry": one.leaf_index} for one in answer.incidents
    ]
    behind = answer.tree_size - answer.reconciled_through
    read = {"through": answer.reconciled_through, "tree_size": answer.tree_size}
    _shown(values, read, f"No incident stands; {behind} of {answer.tree_size} entries are new.")
    _end(values, known=True)


def _shown(values: Sequence[dict[str, Any]], read: dict[str, Any], nothing: str) -> None:
    if output.is_json():
        output.record({"incidents": list(values), **read})
    else:
        entry = ("entry",) if values and "entry" in values[0] else ()
        output.rows("incidents", values, (*entry, *COLUMNS), empty=nothing)


def _end(values: Sequence[dict[str, Any]], *, known: bool) -> None:
    if any(not one["passes"] for one in values):
        sys.exit(REFUSED)
    if not known:
        sys.exit(UNKNOWN)


def _incident(one: pb.Incident) -> Any:
    from capsign_evidence.incident_leaf import IncidentKind
    from capsign_evidence.reconcile.incidents import Incident

    return Incident(
        IncidentKind(one.kind),
        one.workload,
        one.boot_id,
        one.digest,
        one.intent_id,
        one.leaf_index_plus_one,
        one.first,
        one.last,
        one.count,
        one.since.ToMilliseconds(),
    )
