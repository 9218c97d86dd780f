"""`capsign keys jwks`: the public keys of a grant, for whoever verifies."""

from __future__ import annotations

from typing import Any

import click

from capsign_cli import endpoints, output


@click.command()
@click.argument("grant")
@click.option("--protocol", default="", help="The protocol, where the grant allows several.")
@click.option("--role", default="", help="The role, where the grant allows several.")
@click.option("--version", default="", help="The protocol's version, where it allows several.")
@click.option("--path", is_flag=True, help="Print the path at `listen.public_address` instead.")
@endpoints.adapter_options
def jwks(grant: str, protocol: str, role: str, version: str, path: bool, **options: Any) -> None:
    """Print the public keys of a grant's context as a JWK Set (RFC 7517).

    A published version is in it before it signs. Verifiers fetch the same at the adapter's
    `listen.public_address`.
    """
    adapter = endpoints.adapter_of(options)
    from capsign_wire.adapter.v1 import keys_pb2 as pb
    from capsign_wire.adapter.v1 import keys_pb2_grpc
    from capsign_wire.types.v1 import signing_pb2

    context = signing_pb2.ContextSuffix(protocol=protocol, role=role, protocol_version=version)
    with adapter.channel() as channel:
        stub = keys_pb2_grpc.KeyServiceStub(channel)
        found = stub.GetKeySet(pb.GetKeySetRequest(grant=grant, context=context), timeout=10)
    output.raw(found.path.encode() + b"\n" if path else found.key_set + b"\n")
