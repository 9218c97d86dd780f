"""`capsign inventory`: everything that there is to sign with, in the terminal, as JSON, or as a
page of its own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import drift as drift_command
from capsign_cli import endpoints, inventory_values, key_values, output
from capsign_cli.failures import UNAVAILABLE, CliError

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import inventory_pb2 as pb

COLUMNS = (
    "key",
    "version",
    "state",
    "custody",
    "algorithms",
    "age",
    "cryptoperiod_used",
    "last_used",
    "subjects",
)
TRIES = 3
"""How often the pages are read anew because something was changed between two of them."""


@click.command()
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write one self-contained page to this file, for a browser or a printer.",
)
@endpoints.adapter_options
@output.option
def inventory(page: Path | None, **options: Any) -> None:
    """Tenants, keys, versions, objects of the token, grants and whom they let sign."""
    from capsign_wire.adapter.v1 import inventory_pb2, inventory_pb2_grpc

    with endpoints.adapter_of(options).channel() as channel:
        stub = inventory_pb2_grpc.InventoryServiceStub(channel)
        found = _read(stub)
        differs = stub.ListDrift(inventory_pb2.ListDriftRequest(), timeout=drift_command.SECONDS)
    values = inventory_values.of(found, time.time())
    values["drift"] = [drift_command.values_of(one) for one in differs.differences]
    if page is not None:
        from capsign_cli.inventory_page import render

        page.write_text(render(values), encoding="utf-8")
    if output.is_json():
        output.record(values)
        return
    if page is not None:
        output.line({}, f"Wrote {page}.")
        return
    versions = values["versions"]
    output.rows("versions", versions, key_values.columns(COLUMNS, versions), empty="No keys yet.")
    output.line({}, "")
    output.line({}, summary(values))


def summary(values: dict[str, Any]) -> str:
    """What the table does not show, in one line."""
    strangers = sum(not one["known"] for one in values["objects"])
    counts = (
        (len(values["keys"]), "key", ""),
        (len(values["grants"]), "grant", ""),
        (len({w for grant in values["grants"] for w in grant["workloads"]}), "subject", ""),
        (len(values["objects"]), "label", " in the token"),
        (strangers, "unknown label", ""),
        (len(values["drift"]), "difference", " (`capsign drift`)"),
    )
    return ", ".join(f"{n} {what}{'s' * (n != 1)}{more}" for n, what, more in counts) + "."


def _read(stub: Any) -> list[pb.GetInventoryResponse]:
    """All pages of one epoch. Raises CliError if it moves each time."""
    from capsign_wire.adapter.v1 import inventory_pb2

    for _ in range(TRIES):
        pages: list[pb.GetInventoryResponse] = []
        offset = 0
        while not pages or offset:
            request = inventory_pb2.GetInventoryRequest(offset=offset)
            pages.append(stub.GetInventory(request, timeout=drift_command.SECONDS))
            offset = pages[-1].next
        if len({page.epoch for page in pages}) == 1:
            return pages
    text = "Keys or policy were changed each time while the inventory was read."
    raise CliError(UNAVAILABLE, "MOVED", text, "Ask again.")
