"""`capsign keys`: what the adapter has, for operators, responders and auditors."""

from __future__ import annotations

from typing import Any

import click

from capsign_cli import endpoints, output


@click.group()
def keys() -> None:
    """Keys and their versions."""


@keys.command("list")
@click.option("--tenant", default="", help="Only this tenant.")
@endpoints.adapter_options
@output.option
def list_keys(tenant: str, **options: Any) -> None:
    """List keys: state, custody and algorithms of each version."""
    adapter = endpoints.adapter_of(options)
    from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc
    from capsign_wire.algorithms import ALGORITHMS, CUSTODY_NAMES
    from capsign_wire.types.v1 import signing_pb2

    with adapter.channel() as channel:
        found = admin_pb2_grpc.AdminServiceStub(channel).ListKeys(
            admin_pb2.ListKeysRequest(tenant=tenant), timeout=10
        )
    values = [
        {
            "tenant": key.tenant,
            "key": key.name,
            "version": version.version,
            "state": signing_pb2.KeyState.Name(version.state)
            .removeprefix("KEY_STATE_")
            .lower()
            .replace("_", "-"),
            "custody": CUSTODY_NAMES.get(version.custody, ""),
            "algorithms": [
                ALGORITHMS[number].name for number in version.algorithms if number in ALGORITHMS
            ],
            "created_at": version.created_at.ToDatetime().isoformat(timespec="seconds") + "Z",
            "check_value": version.check_value.hex(),
        }
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
        "check_value",
    )
    none = (
        f"No keys of a tenant {tenant}."
        if tenant
        else "No keys: run `capsign-adapter provision` with a policy that names some."
    )
    output.rows("keys", values, columns, empty=none)
