"""`capsign revoke`: withdraw a handle, a grant, a workload, a key or one version of it, a tenant or
everything, for responders and operators.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import endpoints, output, revocations
from capsign_cli.connecting import connected
from capsign_cli.failures import REFUSED, UNKNOWN, CliError

if TYPE_CHECKING:
    import grpc
    from capsign_wire.adapter.v1 import admin_pb2

ANSWER_SECONDS = 30.0
"""Longest wait for the answer, and for a place at the adapter."""


@click.group()
def revoke() -> None:
    """Withdraw at once, on every replica; in force when this answers. It says who stops signing and
    asks; --yes asks nothing.

    What is wider than a handle stands until two people lift it.
    """


def _command(kind: str, target: str, text: str) -> None:
    """Add `capsign revoke KIND`. `target` is what the argument is called; empty: there is none."""

    def command(yes: bool, dry_run: bool, unknown_too: bool = False, **options: Any) -> None:
        at = options.pop("target", "*")
        if dry_run:
            foresee(kind, at, options)
        else:
            withdraw(kind, at, options, yes=yes, unknown_too=unknown_too)

    command.__doc__ = text
    decorated: Any = endpoints.adapter_options(output.option(command))
    if kind == "workload":
        decorated = click.option(
            "--unknown-too",
            is_flag=True,
            help="Revoke a workload even if the policy names none of that ID.",
        )(decorated)
    decorated = click.option(
        "--dry-run", is_flag=True, help="Say who would stop signing, and revoke nothing."
    )(decorated)
    decorated = click.option("--yes", is_flag=True, help="Do not ask, whoever stops signing.")(
        decorated
    )
    if target:
        decorated = click.argument("target", metavar=target)(decorated)
    revoke.command(kind)(decorated)


_command("handle", "SERIAL", "One handle, by its serial in hexadecimal. Nothing lifts it.")
_command("grant", "GRANT", "Every handle of a grant.")
_command("workload", "SPIFFE_ID", "Every handle of a workload, and its next certificate.")
_command("key", "TENANT/KEY", "A key, with all its versions.")
_command("key-version", "TENANT/KEY/VERSION", "One version of a key; the others sign on.")
_command("tenant", "TENANT", "All keys and grants of a tenant.")
_command("everything", "", "Everything: every workload stops signing.")
for _each in (revocations.list_revocations, revocations.lift):
    revoke.add_command(_each)


def foresee(kind: str, target: str, options: dict[str, Any]) -> None:
    """Say who would stop signing. Changes nothing."""
    number = revocations.number_of(kind)
    with endpoints.adapter_of(options).channel() as channel, connected(channel):
        reach = revocations.reached(channel, number, target)
    values = revocations.foreseen(kind, target, reach)
    if not output.is_json():
        values["what_will_happen"] = "\n".join(values["what_will_happen"])
    output.record(values)


def withdraw(
    kind: str, target: str, options: dict[str, Any], *, yes: bool, unknown_too: bool
) -> None:
    """Revoke, after a look at who is reached and, if anybody is, a question."""
    adapter = endpoints.adapter_of(options)
    revocations.demand_answer(kind, yes=yes)
    from capsign_wire.adapter.v1 import admin_pb2

    number = revocations.number_of(kind)
    request = admin_pb2.RevokeRequest(kind=number, target=target, only_known=not unknown_too)
    with adapter.channel() as channel, connected(channel):
        reached = revocations.reached(channel, number, target)
        revocations.confirm(kind, target, reached, yes=yes)
        # Until here nothing can have happened; a connection that breaks afterwards leaves open
        # whether it did.
        answer = _answer(channel, request)
    values = {
        "revoked": kind,
        "target": target,
        "revocation_epoch": answer.revocation_epoch,
        "leaf_index": answer.leaf_index,
    }
    if kind == "handle":
        values["note"] = (
            "Serials are not kept: nobody can say whether there is a handle of this one."
        )
    elif reached is not None:
        values["workloads"] = reached.workload_count
        if kind == "key-version":
            values["successors"] = list(reached.successors)
        values["lifted_by"] = reached.lifted_by
    output.record(values)


def _answer(channel: grpc.Channel, request: admin_pb2.RevokeRequest) -> admin_pb2.RevokeResponse:
    """The adapter's answer. Raises CliError UNKNOWN where the request was sent and no answer came,
    and grpc.RpcError with the adapter's own refusal.
    """
    import grpc
    from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc
    from capsign_wire.failures import FailureError
    from capsign_wire.types.v1 import failures_pb2

    try:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        answer: admin_pb2.RevokeResponse = _revoked(stub.Revoke, request)
        return answer
    except grpc.RpcError as error:
        told = FailureError.from_rpc(error)
        if told is None:
            text = "The connection broke, or took too long, after the revocation was sent."
            advice = "Revoke again: what is revoked already stays so."
            raise CliError(UNKNOWN, "NO_ANSWER", text, advice) from None
        workload = request.kind == admin_pb2.REVOCATION_KIND_WORKLOAD
        if not workload or told.reason != failures_pb2.REASON_NOT_FOUND:
            raise
        said = told.detail.removesuffix(told.advice).strip()
        advice = "Correct the ID. If another policy has it, or had it until now, say --unknown-too."
        raise CliError(REFUSED, told.row.name, said, advice) from None


def _revoked(call: Any, request: Any) -> Any:
    """The answer. An adapter that has no place for it is asked again for as long as one waits for
    an answer: who must revoke has no better thing to do. Raises grpc.RpcError.
    """
    import grpc
    from capsign_wire.failures import FailureError
    from capsign_wire.types.v1 import failures_pb2

    full = {failures_pb2.REASON_OVERLOADED, failures_pb2.REASON_DRAINING}
    end, told_so = time.monotonic() + ANSWER_SECONDS, False
    while True:
        try:
            return call(request, timeout=max(0.1, end - time.monotonic()))
        except grpc.RpcError as error:
            failure = FailureError.from_rpc(error)
            pause = max(0.1, failure.retry_after_ms / 1000) if failure is not None else 0.0
            if failure is None or failure.reason not in full or time.monotonic() + pause >= end:
                raise
            if not told_so and not output.is_json():
                click.echo(f"{failure.row.name}: the adapter is busy. Trying again …", err=True)
            told_so = True
            time.sleep(pause)
