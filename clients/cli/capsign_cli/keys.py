"""`capsign keys`: what the adapter has, for operators, responders and auditors."""

from __future__ import annotations

from typing import Any

import click

from capsign_cli import endpoints, key_acts, key_publishing, key_sets, key_values, output


@click.group()
def keys() -> None:
    """Keys and their versions."""


for _command in (
    key_acts.show,
    key_acts.create,
    key_acts.rotate,
    key_publishing.publish,
    key_publishing.activate,
    key_acts.suspend,
    key_acts.resume,
    key_acts.deactivate,
    key_acts.compromise,
    key_acts.destroy,
    key_sets.jwks,
):
    keys.add_command(_command)


@keys.command("list")
@click.option("--tenant", default="", help="Only this tenant.")
@endpoints.adapter_options
@output.option
def list_keys(tenant: str, **options: Any) -> None:
    """List keys: state, custody and algorithms of each version."""
    adapter = endpoints.adapter_of(options)
    from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc

    with adapter.channel() as channel:
        found = admin_pb2_grpc.AdminServiceStub(channel).ListKeys(
            admin_pb2.ListKeysRequest(tenant=tenant), timeout=10
        )
    values = [
        {"tenant": key.tenant, "key": key.name, **key_values.of_version(version)}
        for key in found.keys
        for version in key.versions
    ]
    columns = (
        "tenant",
        "key",
        "version",
        "state",
        "custody",
        "algorithms",
        "created_at",
        "last_used_at",
        "cryptoperiod_used",
        "check_value",
    )
    none = (
        f"No keys of a tenant {tenant}."
        if tenant
        else "No keys: run `capsign-adapter provision` with a policy that names some."
    )
    output.rows("keys", values, key_values.columns(columns, values), empty=none)
