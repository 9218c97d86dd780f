"""`capsign revoke`: withdraw a handle, a grant, a workload, a key, a tenant or everything, for responders and operators."""

from __future__ import annotations

from typing import Any

import click

from capsign_cli import output, place

KINDS = ("handle", "grant", "workload", "key", "tenant", "everything")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("target", default="")
@click.option("--yes", is_flag=True, help="Do not ask before revoking everything.")
@place.adapter_options
@output.option
def revoke(kind: str, target: str, yes: bool, **options: Any) -> None:
    """Withdraw at once, on every replica; in force when this answers. There is no way back but a new grant, key or policy.

    TARGET is a handle's serial in hexadecimal, a grant's name, a SPIFFE ID, "tenant/key", or a tenant's name.
    """
    adapter = place.adapter_of(options)
    if kind == "everything":
        target = "*"
        if not yes:
            click.confirm("Every workload stops signing. Revoke everything?", abort=True, err=True)
    elif not target:
        raise click.UsageError(f"Say which {kind}.")
    from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc

    number = admin_pb2.RevocationKind.Value(f"REVOCATION_KIND_{kind.upper()}")
    request = admin_pb2.RevokeRequest(kind=number, target=target)
    with adapter.channel() as channel:
        answer = admin_pb2_grpc.AdminServiceStub(channel).Revoke(request, timeout=30)
    values = {"revoked": kind, "target": target, "revocation_epoch": answer.revocation_epoch, "leaf_index": answer.leaf_index}
    output.record(values)
