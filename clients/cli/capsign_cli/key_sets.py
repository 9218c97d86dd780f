"""`capsign keys jwks`: the public keys of a grant, for whoever verifies."""

from __future__ import annotations

from typing import Any

import click

from capsign_cli import endpoints, output
from capsign_cli.failures import USAGE, CliError
from capsign_cli.signing import signer_at


@click.command()
@click.argument("grant")
@click.option("--protocol", default="", help="The protocol, where the grant allows several.")
@click.option("--role", default="", help="The role, where the grant allows several.")
@click.option("--version", default="", help="The protocol's version, where it allows several.")
@click.option("--path", is_flag=True, help="Print the path at `listen.public_address` instead.")
@click.option("--socket", help="Ask this agent, as the application does, and no adapter.")
@endpoints.adapter_options
def jwks(grant: str, path: bool, socket: str | None, **options: Any) -> None:
    """Print the public keys of a grant's context as a JWK Set (RFC 7517).

    A published version is in it before it signs. Verifiers fetch the same at the adapter's
    `listen.public_address`, and applications at their agent's socket.
    """
    protocol, role, version = (options.pop(name) for name in ("protocol", "role", "version"))
    if socket is not None:
        if path:
            text = "--path is of the adapter's listener, and --socket an agent's."
            raise CliError(USAGE, "OPTIONS", text, "Leave one of them out.")
        with signer_at(socket, 10.0) as signer:
            found_at = signer.jwks(
                grant=grant, protocol=protocol, role=role, protocol_version=version
            )
        output.raw(found_at.body + b"\n")
        return
    adapter = endpoints.adapter_of(options)
    from capsign_wire.adapter.v1 import keys_pb2 as pb
    from capsign_wire.adapter.v1 import keys_pb2_grpc
    from capsign_wire.types.v1 import signing_pb2

    context = signing_pb2.ContextSuffix(protocol=protocol, role=role, protocol_version=version)
    with adapter.channel() as channel:
        stub = keys_pb2_grpc.KeyServiceStub(channel)
        found = stub.GetKeySet(pb.GetKeySetRequest(grant=grant, context=context), timeout=10)
    output.raw(found.path.encode() + b"\n" if path else found.key_set + b"\n")
