"""Around `capsign revoke`: who is reached, what is revoked, and a proposal to lift it."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import approvals, endpoints, output
from capsign_cli.failures import UNAVAILABLE, USAGE, CliError

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import revocations_pb2

KINDS = ("grant", "workload", "key", "key-version", "tenant", "everything")
"""What can be lifted."""

SECONDS = 10.0
"""Longest wait for a preview: who must revoke does not wait long for a look."""

MOST_SHOWN = 20
"""Workloads that a question names."""

COLUMNS = ("kind", "target", "epoch", "revoked_at", "revoked_by", "lifted")


def number_of(kind: str) -> Any:
    """The number of a kind of revocation."""
    from capsign_wire.adapter.v1 import admin_pb2

    name = kind.upper().replace("-", "_")
    return admin_pb2.RevocationKind.Value(f"REVOCATION_KIND_{name}")


def reached(
    channel: Any, number: Any, target: str
) -> revocations_pb2.PreviewRevocationResponse | None:
    """Who would stop signing; None if that cannot be learned: it hinders nobody from revoking.
    Raises grpc.RpcError with a refusal that the revocation would have too.
    """
    import grpc
    from capsign_wire.adapter.v1 import revocations_pb2 as pb
    from capsign_wire.adapter.v1 import revocations_pb2_grpc
    from capsign_wire.failures import FailureError
    from capsign_wire.types.v1 import failures_pb2

    same = {
        failures_pb2.REASON_INPUT_MALFORMED,
        failures_pb2.REASON_NOT_FOUND,
        failures_pb2.REASON_ROLE_MISSING,
    }
    request = pb.PreviewRevocationRequest(kind=number, target=target)
    try:
        found: pb.PreviewRevocationResponse = revocations_pb2_grpc.RevocationServiceStub(
            channel
        ).PreviewRevocation(request, timeout=SECONDS)
    except grpc.RpcError as error:
        told = FailureError.from_rpc(error)
        if told is not None and told.reason in same:
            raise
        return None
    return found


def demand_answer(kind: str, *, yes: bool) -> None:
    """Raises CliError where a question is certain and nobody can be asked, before anything is
    asked of an adapter.
    """
    if kind == "everything" and output.is_json() and not yes:
        raise _not_confirmed("Every workload stops signing.")


def _not_confirmed(what: str) -> CliError:
    return CliError(USAGE, "NOT_CONFIRMED", what, "Say --yes; -o json asks nothing.")


def confirm(
    kind: str,
    target: str,
    reach: revocations_pb2.PreviewRevocationResponse | None,
    *,
    yes: bool,
) -> None:
    """Say who stops signing, and ask if anybody does, or if that is not known. Raises CliError
    where nobody can be asked, and click.Abort at a no.
    """
    wide = reach.wide if reach is not None else kind != "handle"
    told = words(kind, target, reach)
    if yes or not wide:
        if told and not yes and not output.is_json():
            click.echo(output.printable("\n".join(told), lines=True), err=True)
        return
    if output.is_json():
        raise _not_confirmed("\n".join(told))
    click.echo(output.printable("\n".join(told), lines=True), err=True)
    what = "everything" if kind == "everything" else f"{kind} {target}"
    click.confirm(f"Revoke {what}?", abort=True, err=True)


def words(
    kind: str, target: str, reach: revocations_pb2.PreviewRevocationResponse | None
) -> list[str]:
    """What a revocation does, in lines for a person."""
    if kind == "everything" and not (reach and reach.workload_count):
        return ["Every workload stops signing."]
    if reach is None:
        return ["Who stops signing could not be learned."]
    lines = []
    if kind == "key-version":
        lines.append(_after(target, reach))
    if reach.roles:
        lines.append(f"It has the roles {', '.join(reach.roles)}, and decides nothing any more.")
    if not reach.workload_count:
        lines.append("By the policy in force no workload stops signing.")
        return [*lines, reach.lifted_by] if reach.roles else lines
    count, grants = reach.workload_count, reach.grant_count
    minutes = -(-reach.handle_life_ms // 60_000)
    every = "Every workload stops signing: " if kind == "everything" else ""
    lines.append(
        f"{every}{count} workload{'s' * (count != 1)} under {grants} grant{'s' * (grants != 1)}; "
        f"handles live for up to {minutes} min, and none of them helps any more:"
    )
    lines += [f"  {name}" for name in reach.workloads[:MOST_SHOWN]]
    if count > MOST_SHOWN:
        lines.append(f"  and {count - MOST_SHOWN} more")
    return [*lines, reach.lifted_by]


def _after(target: str, reach: revocations_pb2.PreviewRevocationResponse) -> str:
    """What signs once this version does not."""
    key, _, number = target.rpartition("/")
    if reach.successors:
        return f"Versions that sign on: {', '.join(map(str, reach.successors))}."
    if not reach.workload_count:
        return "No version of this key signs, also now."
    return (
        f"Version {number} is the only one of {key} that signs: nothing is signed with this key "
        f"any more until `capsign keys rotate {key}` makes another."
    )


def foreseen(
    kind: str, target: str, reach: revocations_pb2.PreviewRevocationResponse | None
) -> dict[str, Any]:
    """What a revocation would do, for `--dry-run`. Raises CliError if that cannot be learned."""
    if reach is None:
        text = "Who stops signing could not be learned, and nothing was revoked."
        raise CliError(UNAVAILABLE, "PREVIEW_MISSING", text, "Ask another adapter, or later.")
    return {
        "would_revoke": kind,
        "target": target,
        "asks": reach.wide,
        "what_will_happen": words(kind, target, reach),
        "workload_count": reach.workload_count,
        "workloads": list(reach.workloads),
        "grants": list(reach.grants),
        **({"successors": list(reach.successors)} if kind == "key-version" else {}),
        **({"roles": list(reach.roles)} if reach.roles else {}),
        "lifted_by": reach.lifted_by,
    }


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Also what was lifted.")
@endpoints.adapter_options
@output.option
def list_revocations(everything: bool, **options: Any) -> None:
    """List what is revoked, newest first."""
    from capsign_wire.adapter.v1 import revocations_pb2 as pb
    from capsign_wire.adapter.v1 import revocations_pb2_grpc

    with endpoints.adapter_of(options).channel() as channel:
        stub = revocations_pb2_grpc.RevocationServiceStub(channel)
        request = pb.ListRevocationsRequest(all=everything)
        found = stub.ListRevocations(request, timeout=SECONDS).revocations
    values = [_values(one) for one in found]
    output.rows("revocations", values, COLUMNS, empty="Nothing is revoked.")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("target", default="")
@endpoints.adapter_options
@output.option
def lift(kind: str, target: str, **options: Any) -> None:
    """Propose that what was revoked may be used again; somebody else approves it.

    KIND and TARGET are as `capsign revoke list` shows them.
    """
    from capsign_wire.adapter.v1 import revocations_pb2 as pb
    from capsign_wire.adapter.v1 import revocations_pb2_grpc

    if not target and kind != "everything":
        raise click.UsageError(f"Say which {kind}.")
    with endpoints.adapter_of(options).channel() as channel:
        stub = revocations_pb2_grpc.RevocationServiceStub(channel)
        request = pb.ProposeLiftRequest(kind=number_of(kind), target=target or "*")
        answer = stub.ProposeLift(request, timeout=approvals.SECONDS)
    output.record({"lift": kind, "target": target or "*", **approvals.proposed(answer.proposal_id)})


def _values(one: revocations_pb2.Revocation) -> dict[str, Any]:
    from capsign_wire.adapter.v1 import admin_pb2

    kind = admin_pb2.RevocationKind.Name(one.kind).removeprefix("REVOCATION_KIND_")
    when = one.revoked_at.ToDatetime(tzinfo=UTC)
    return {
        "kind": kind.lower().replace("_", "-"),
        "target": one.target,
        "epoch": one.epoch,
        "revoked_at": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "revoked_by": one.revoked_by,
        "lifted": f"at epoch {one.lifted_epoch}" if one.lifted_epoch else "",
    }
