"""`capsign approvals`: what somebody proposed and somebody else must decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click
from click.shell_completion import CompletionItem

from capsign_cli import endpoints, output
from capsign_cli.failures import REFUSED, USAGE, CliError

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import approvals_pb2

Command = TypeVar("Command", bound=Callable[..., Any])

SECONDS = 30.0
"""Longest wait for an answer: what is approved is in force on every replica by then."""

GLASS_REASONS = ("attack", "outage", "mistake", "drill")
COLUMNS = ("id", "state", "act", "target", "proposer", "expires_at", "note")


@click.group()
def approvals() -> None:
    """Acts that need two people: one proposes, another one decides.

    ID is a proposal's id, or its beginning, as long as it is the only one.
    """


def _complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The ids of proposals that wait. Nothing if no adapter can be asked."""
    try:
        with endpoints.completing(ctx) as channel:
            found = _listed(channel, waiting=True, seconds=2.0)
    except Exception:  # whatever hinders: a shell that completes is no place for a message
        return []
    shown = [(_id(one), f"{_act(one)} {one.target}") for one in found]
    return [CompletionItem(name, help=text) for name, text in shown if name.startswith(incomplete)]


def _one(command: Command) -> Command:
    """A command about one proposal."""
    with_options = endpoints.adapter_options(output.option(command))
    return click.argument("proposal", metavar="ID", shell_complete=_complete)(with_options)


@approvals.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that wait for nobody any more.")
@endpoints.adapter_options
@output.option
def list_proposals(everything: bool, **options: Any) -> None:
    """List proposals that wait: for a decision, for their time, for an acknowledgement."""
    with endpoints.adapter_of(options).channel() as channel:
        found = _listed(channel, waiting=not everything)
    none = "No proposals." if everything else "Nothing waits for a second person."
    output.rows("proposals", [_values(one) for one in found], COLUMNS, empty=none)


@approvals.command()
@_one
def show(proposal: str, **options: Any) -> None:
    """Say in words exactly what will happen, and who asked for it."""
    with _found(proposal, options) as (channel, one):
        values = {**_values(one), "what_will_happen": _words(channel, one)}
    _tell(values)


@approvals.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@_one
def approve(proposal: str, yes: bool, **options: Any) -> None:
    """Agree: it happens now, on every replica, or once its waiting period is over."""
    from capsign_wire.adapter.v1 import approvals_pb2 as pb

    with _found(proposal, options) as (channel, one):
        _ask(channel, one, yes, "Approve this?")
        request = pb.ApproveRequest(id=one.id, digest=one.digest)
        answer = _stub(channel).Approve(request, timeout=SECONDS)
    _tell({**_values(answer.proposal), "leaf_index": answer.leaf_index, "epoch": answer.epoch})


@approvals.command()
@_one
def reject(proposal: str, **options: Any) -> None:
    """Refuse it, for good."""
    from capsign_wire.adapter.v1 import approvals_pb2 as pb

    with _found(proposal, options) as (channel, one):
        answer = _stub(channel).Reject(pb.RejectRequest(id=one.id), timeout=SECONDS)
    _tell({**_values(answer.proposal), "leaf_index": answer.leaf_index})


@approvals.command("call-off")
@_one
def call_off(proposal: str, **options: Any) -> None:
    """Withdraw it, for good; also while it waits after its approval."""
    from capsign_wire.adapter.v1 import approvals_pb2 as pb

    with _found(proposal, options) as (channel, one):
        answer = _stub(channel).CallOff(pb.CallOffRequest(id=one.id), timeout=SECONDS)
    _tell({**_values(answer.proposal), "leaf_index": answer.leaf_index})


@approvals.command("break-glass")
@click.option("--reason", type=click.Choice(GLASS_REASONS), required=True, help="Why.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_one
def break_glass(proposal: str, reason: str, yes: bool, **options: Any) -> None:
    """Do it alone, now, where the table allows that. Everybody sees it until somebody else has
    acknowledged it.
    """
    from capsign_wire.adapter.v1 import approvals_pb2 as pb

    with _found(proposal, options) as (channel, one):
        _ask(channel, one, yes, "Do this without a second person?")
        number = pb.GlassReason.Value(f"GLASS_REASON_{reason.upper()}")
        request = pb.BreakGlassRequest(id=one.id, digest=one.digest, reason=number)
        answer = _stub(channel).BreakGlass(request, timeout=SECONDS)
    _tell({**_values(answer.proposal), "leaf_index": answer.leaf_index, "epoch": answer.epoch})


@approvals.command()
@_one
def acknowledge(proposal: str, **options: Any) -> None:
    """Say that you have looked at what somebody did alone."""
    from capsign_wire.adapter.v1 import approvals_pb2 as pb

    with _found(proposal, options) as (channel, one):
        answer = _stub(channel).Acknowledge(pb.AcknowledgeRequest(id=one.id), timeout=SECONDS)
    _tell({**_values(answer.proposal), "leaf_index": answer.leaf_index})


def proposed(proposal_id: bytes) -> dict[str, Any]:
    """What a command says whose act waits for a second person now."""
    name = str(UUID(bytes=proposal_id))
    return {"proposal": name, "next": f"somebody else: capsign approvals approve {name}"}


@contextmanager
def _found(wanted: str, options: dict[str, Any]) -> Iterator[tuple[Any, approvals_pb2.Proposal]]:
    """A channel, and the one proposal whose id begins like this. Raises CliError."""
    prefix = wanted.lower().replace("-", "")
    if not prefix or set(prefix) - set("0123456789abcdef") or len(prefix) > 32:
        raise CliError(
            USAGE, "NO_ID", f"{wanted!r} is no id of a proposal.", "See `capsign approvals list`."
        )
    with endpoints.adapter_of(options).channel() as channel:
        found = [one for one in _listed(channel) if one.id.hex().startswith(prefix)]
        if not found and len(prefix) == 32:
            from capsign_wire.adapter.v1 import approvals_pb2 as pb

            request = pb.GetProposalRequest(id=bytes.fromhex(prefix))
            found = [_stub(channel).GetProposal(request, timeout=SECONDS).proposal]
        if len(found) != 1:
            some = "No proposal begins" if not found else f"{len(found)} proposals begin"
            raise CliError(
                REFUSED,
                "NOT_FOUND" if not found else "AMBIGUOUS",
                f"{some} with {wanted}.",
                "See `capsign approvals list --all`, and give more of the id.",
            )
        yield channel, found[0]


def _listed(
    channel: Any, *, waiting: bool = False, seconds: float = SECONDS
) -> list[approvals_pb2.Proposal]:
    from capsign_wire.adapter.v1 import approvals_pb2 as pb

    request = pb.ListProposalsRequest(open=waiting)
    return list(_stub(channel).ListProposals(request, timeout=seconds).proposals)


def _stub(channel: Any) -> Any:
    from capsign_wire.adapter.v1 import approvals_pb2_grpc

    return approvals_pb2_grpc.ApprovalServiceStub(channel)


def _words(channel: Any, one: approvals_pb2.Proposal) -> list[str]:
    from capsign_wire.adapter.v1 import approvals_pb2 as pb

    answer = _stub(channel).GetProposal(pb.GetProposalRequest(id=one.id), timeout=SECONDS)
    return list(answer.words)


def _ask(channel: Any, one: approvals_pb2.Proposal, yes: bool, question: str) -> None:
    """Show what will happen, and ask. Raises CliError where nobody can be asked."""
    if yes:
        return
    if output.is_json():
        raise CliError(
            USAGE, "NOT_CONFIRMED", "It was not confirmed.", "Say --yes; -o json asks nothing."
        )
    click.echo(output.printable(f"{one.proposer} asked for this:"), err=True)
    for sentence in _words(channel, one):
        click.echo(output.printable(f"  * {sentence}"), err=True)
    if one.waits_ms:
        click.echo(f"  It happens {_span(one.waits_ms)} after its approval.", err=True)
    click.confirm(question, abort=True, err=True)


def _tell(values: dict[str, Any]) -> None:
    if not output.is_json() and "what_will_happen" in values:
        values["what_will_happen"] = "\n".join(values["what_will_happen"])
    output.record({name: value for name, value in values.items() if value not in ("", None)})


def _values(one: approvals_pb2.Proposal) -> dict[str, Any]:
    """A proposal's fields for people and JSON; what has not happened is empty."""
    from capsign_wire.adapter.v1 import approvals_pb2 as pb

    return {
        "id": _id(one),
        "state": _word(pb.ProposalState, one.state),
        "act": _act(one),
        "target": one.target,
        "proposer": one.proposer,
        "created_at": _at(one, "created_at"),
        "expires_at": _at(one, "expires_at"),
        "waits": _span(one.waits_ms) if one.waits_ms else "",
        "happens_at": _at(one, "not_before") if one.waits_ms else "",
        "decided_by": one.decided_by,
        "decided_at": _at(one, "decided_at"),
        "executed_at": _at(one, "executed_at"),
        "glass": _word(pb.GlassReason, one.glass) if one.glass else "",
        "acknowledged_by": one.acknowledged_by,
        "digest": one.digest.hex(),
        "note": _note(one),
    }


def _note(one: approvals_pb2.Proposal) -> str:
    if one.glass and not one.acknowledged_by:
        return f"done alone by {one.decided_by}: to be acknowledged"
    if one.HasField("not_before") and not one.HasField("executed_at") and one.waits_ms:
        return f"happens at {_at(one, 'not_before')}"
    return ""


def _id(one: approvals_pb2.Proposal) -> str:
    return str(UUID(bytes=one.id))


def _act(one: approvals_pb2.Proposal) -> str:
    from capsign_wire.adapter.v1 import approvals_pb2 as pb

    return _word(pb.ProposalAct, one.act)


def _word(enum: Any, number: int) -> str:
    """The word for a value of an enumeration; its number if a newer adapter has it."""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    if value is None:
        return str(number)
    common: str = enum.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
    word: str = value.name.removeprefix(common).lower().replace("_", "-")
    return word


def _at(one: approvals_pb2.Proposal, field: str) -> str:
    if not one.HasField(field):  # type: ignore[arg-type]  # the names of its timestamps
        return ""
    when: datetime = getattr(one, field).ToDatetime(tzinfo=UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _span(ms: int) -> str:
    seconds = ms // 1000
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    parts = [(hours, "h"), (minutes, "min"), (seconds % 60, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or f"{ms} ms"
