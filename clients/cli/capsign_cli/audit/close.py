"""`capsign audit close`: an incident that was looked into, and does not end by itself."""

from __future__ import annotations

import sys
from typing import Any

import click

from capsign_cli import endpoints, output
from capsign_cli.failures import REFUSED

SECONDS = 30


@click.command()
@click.argument("entry", type=click.IntRange(0, (1 << 63) - 1))
@endpoints.adapter_options
@output.option
def close(entry: int, **options: Any) -> None:
    """Close the incident that was found by ENTRY, a number in the column "entry" of `capsign audit
    reconcile` without an archive. The log keeps that it was there, and who closed it.

    Exit code 1: no such incident stands. Role: responder.
    """
    from capsign_wire.adapter.v1 import inventory_pb2, inventory_pb2_grpc

    with endpoints.adapter_of(options).channel() as channel:
        stub = inventory_pb2_grpc.InventoryServiceStub(channel)
        request = inventory_pb2.CloseIncidentRequest(leaf_index=entry)
        closed = stub.CloseIncident(request, timeout=SECONDS).closed
    words = "Closed." if closed else "No incident stands that this entry found."
    output.line({"entry": entry, "closed": closed}, words)
    if not closed:
        sys.exit(REFUSED)
