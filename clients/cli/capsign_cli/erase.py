"""`capsign erase`: two people destroy what ties a tenant's entries in the log to content."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from capsign_cli import approvals, endpoints, key_values, output
from capsign_cli.key_acts import acted, confirm

COLUMNS = ("tenant", "erased_at", "epoch", "pepper")


@click.group()
def erase() -> None:
    """Erase a tenant: afterwards nobody can show which message an entry of the log is about.

    The log is not rewritten: entries, proofs and receipts verify as before.
    """


@erase.command()
@click.argument("name", metavar="TENANT")
@click.option("--yes", is_flag=True, help="Do not ask.")
@endpoints.adapter_options
@output.option
def tenant(name: str, yes: bool, **options: Any) -> None:
    """Propose to erase a tenant. An approver agrees, and a waiting period runs, before it happens.

    None of its key versions may sign any more: deactivate them first.
    """
    from capsign_wire.adapter.v1 import tenants_pb2 as pb
    from capsign_wire.adapter.v1 import tenants_pb2_grpc

    text = (
        f"The pepper of {name} and every version of its keys are destroyed for good, once somebody "
        "else approves it and the waiting period is over. After that nobody can show what was "
        f"signed, and no tenant of the name {name} signs again."
    )
    confirm(text, f"Erase {name}?", yes)
    with endpoints.adapter_of(options).channel() as channel:
        stub = tenants_pb2_grpc.TenantServiceStub(channel)
        answer = acted(stub.EraseTenant, pb.EraseTenantRequest(tenant=name), name)
    proposal = str(UUID(bytes=answer.proposal_id))
    output.record(
        {
            "proposed": f"erase tenant {name}",
            "proposal": proposal,
            "expires_at": key_values.when(answer.expires_at),
            "waits_s": answer.waits_ms // 1000,
            "next": f"somebody else: capsign approvals approve {proposal}",
        }
    )


@erase.command("list")
@endpoints.adapter_options
@output.option
def list_erasures(**options: Any) -> None:
    """List the tenants that were erased."""
    from capsign_wire.adapter.v1 import tenants_pb2 as pb
    from capsign_wire.adapter.v1 import tenants_pb2_grpc

    with endpoints.adapter_of(options).channel() as channel:
        stub = tenants_pb2_grpc.TenantServiceStub(channel)
        found = stub.ListErasures(pb.ListErasuresRequest(), timeout=approvals.SECONDS).erasures
    values = [
        {
            "tenant": one.tenant,
            "erased_at": key_values.when(one.erased_at),
            "epoch": one.epoch,
            "pepper": "gone" if one.HasField("gone_at") else "being destroyed",
            "gone_at": key_values.when(one.gone_at) if one.HasField("gone_at") else None,
        }
        for one in found
    ]
    output.rows("erasures", values, COLUMNS, empty="No tenant was erased.")
