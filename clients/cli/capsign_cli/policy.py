"""`capsign policy`: what the policy says, what a change of it would do, and changing it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import endpoints, failures, numbers, output
from capsign_cli.failures import UNAVAILABLE, UNKNOWN, USAGE, CliError

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import policy_pb2

NOTHING, CHANGES, WEAKENS = 0, 1, 3
"""Exit codes of `diff` and `plan`; 2 is wrong use, refused included, and 4 unavailable."""

SECONDS = 30.0
"""Longest wait for an answer."""

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def policy() -> None:
    """The policy: lint, diff, plan, apply, history, show."""


@policy.command("lint")
@click.argument("file", type=FILE)
@output.option
def lint(file: Path) -> None:
    """Whether FILE is a policy, and what is legal in it and still unwise. Needs no adapter running.

    Exit codes: 0 it is one; 2 it is none.
    """
    found = _offline("lint", file)
    output.rows(
        "findings",
        found["findings"],
        ("path", "what", "advice"),
        empty="Nothing to say against it.",
    )


@policy.command("diff")
@click.argument("files", type=FILE, nargs=-1)
@click.option("--to", "version", type=numbers.whole(1), help="A version, in place of a file.")
@endpoints.adapter_options
@output.option
def diff(files: tuple[Path, ...], version: int | None, **options: Any) -> None:
    """What changes from the policy in force to FILE, or from one FILE to another. Two files are
    compared without an adapter running.

    Exit codes: 0 nothing changes; 1 something, and nothing of it weakens; 2 wrong use, or it is no
    policy; 3 something weakens or broadens; 4 no adapter was reached.
    """
    if len(files) == 2 and version is None:
        found = _offline("diff", *files)
        _tell_changes(found["changes"], found["summary"], found["weakens"])
        raise click.exceptions.Exit(_code(found["changes"], found["weakens"]))
    plan = _planned(files, version, options)
    changes = [_change(each) for each in plan.changes]
    _tell_changes(changes, plan.summary, plan.weakens)
    raise click.exceptions.Exit(_code(changes, plan.weakens))


@policy.command("plan")
@click.argument("files", type=FILE, nargs=-1)
@click.option("--to", "version", type=numbers.whole(1), help="A version, in place of a file.")
@endpoints.adapter_options
@output.option
def plan(files: tuple[Path, ...], version: int | None, **options: Any) -> None:
    """What FILE would change, which grants, handles and workloads that touches, and what to think
    of before it is applied. Exit codes as of `diff`.
    """
    found = _planned(files, version, options)
    _tell_plan(found)
    raise click.exceptions.Exit(_code(found.changes, found.weakens))


@policy.command("apply")
@click.argument("file", type=FILE)
@click.option("--yes", is_flag=True, help="Do not ask.")
@endpoints.adapter_options
@output.option
def apply(file: Path, yes: bool, **options: Any) -> None:
    """Make FILE the next version. It is in force on every replica when this answers, or waits for
    somebody else to approve it.
    """
    from capsign_wire.adapter.v1 import policy_pb2
    from capsign_wire.packed import pack

    document = pack(file.read_bytes())
    with _stub(options) as stub:
        found = stub.PlanPolicy(policy_pb2.PlanPolicyRequest(document=document), timeout=SECONDS)
        _confirm(found, yes)
        request = policy_pb2.ProposePolicyRequest(document=document, base=found.base)
        answer = stub.ProposePolicy(request, timeout=SECONDS)
    values = _version(answer.version) | {
        "changes": answer.change_count,
        "weakens": answer.weakens,
        "proposal": answer.proposal_id.hex(),
        "epoch": answer.epoch,
    }
    if answer.proposal_id:
        values["note"] = (
            f"It waits: somebody else says `capsign approvals approve {answer.proposal_id.hex()}`."
        )
    output.record(values)


@policy.command("history")
@endpoints.adapter_options
@output.option
def history(**options: Any) -> None:
    """Versions of the policy, newest first, and whether the adapter's file says something else."""
    from capsign_wire.adapter.v1 import policy_pb2

    with _stub(options) as stub:
        found = stub.ListPolicies(policy_pb2.ListPoliciesRequest(), timeout=SECONDS)
    columns = ("version", "state", "digest", "proposer", "proposed_at", "decided_by", "decided_at")
    output.rows(
        "versions", [_version(row) for row in found.versions], columns, empty="There is none."
    )
    if found.file_differs and not output.is_json():
        click.echo(
            "The file of that adapter is another policy than the one in force: apply it, or put "
            "the one in force into it (`capsign policy show`).",
            err=True,
        )


@policy.command("show")
@click.argument("version", type=numbers.whole(1), required=False)
@endpoints.adapter_options
@output.option
def show(version: int | None, **options: Any) -> None:
    """The document of VERSION, or of the one in force, as it was written."""
    from capsign_wire.adapter.v1 import policy_pb2
    from capsign_wire.packed import unpack

    with _stub(options) as stub:
        request = policy_pb2.GetPolicyRequest(version=version or 0)
        found = stub.GetPolicy(request, timeout=SECONDS)
    document = unpack(found.document, 64 * 1024 * 1024)
    if output.is_json():
        output.record(_version(found.version) | {"document": document.decode(errors="replace")})
    else:
        output.raw(document)


@contextmanager
def _stub(options: dict[str, Any]) -> Iterator[Any]:
    from capsign_wire.adapter.v1 import policy_pb2_grpc

    with endpoints.adapter_of(options).channel() as channel:
        yield policy_pb2_grpc.PolicyServiceStub(channel)


def _planned(
    files: tuple[Path, ...], version: int | None, options: dict[str, Any]
) -> policy_pb2.PlanPolicyResponse:
    """What one file or one version would change. Raises CliError with an exit code that no change
    has.
    """
    from capsign_wire.adapter.v1 import policy_pb2
    from capsign_wire.packed import pack

    if (len(files) == 1) == (version is not None) or len(files) > 1:
        raise click.UsageError("Name one FILE, or a version with --to.")
    request = policy_pb2.PlanPolicyRequest(
        document=pack(files[0].read_bytes()) if files else b"", version=version or 0
    )
    with _predicate(), _stub(options) as stub:
        answer: policy_pb2.PlanPolicyResponse = stub.PlanPolicy(request, timeout=SECONDS)
        return answer


@contextmanager
def _predicate() -> Iterator[None]:
    """Whatever fails here has an exit code that means no change: refused is wrong use, and a
    question without an answer is unavailable.
    """
    try:
        yield
    except Exception as error:
        told = failures.told(error)
        if told is None or isinstance(error, click.ClickException):
            raise
        code = UNAVAILABLE if told.exit_code in {UNAVAILABLE, UNKNOWN} else USAGE
        raise CliError(code, told.reason, told.message, told.advice) from None


def _offline(command: str, *files: Path) -> dict[str, Any]:
    """What the adapter's own code says, in a process of its own. Raises CliError."""
    arguments = [sys.executable, "-m", "capsign_adapter.policy_command", command, *map(str, files)]
    done = subprocess.run(arguments, capture_output=True, check=False)
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    said = done.stderr.decode(errors="replace").strip()
    if "No module named" in said:
        advice = "Install it beside this command, or compare with a running adapter's policy."
        raise CliError(USAGE, "NOT_INSTALLED", "It needs capsign-adapter.", advice)
    if done.returncode != USAGE:
        advice = "Report it with the document: nothing is said of the policy."
        raise CliError(UNAVAILABLE, "INTERNAL", said[-2000:], advice)
    raise CliError(USAGE, "POLICY", said, "Correct the document.")


def _code(changes: Any, weakens: bool) -> int:
    if weakens:
        return WEAKENS
    return CHANGES if changes else NOTHING


def _tell_changes(changes: list[dict[str, Any]], summary: str, weakens: bool) -> None:
    if output.is_json():
        output.record({"changes": changes, "summary": summary, "weakens": weakens})
        return
    if changes:
        output.rows("changes", changes, ("strength", "subject", "words"), empty="")
    click.echo(summary)


def _tell_plan(plan: policy_pb2.PlanPolicyResponse) -> None:
    changes = [_change(each) for each in plan.changes]
    touched = [
        {
            "grant": each.grant,
            "workloads": list(each.workloads),
            "workload_count": each.workload_count,
            "effect": each.words,
        }
        for each in plan.touched
    ]
    if output.is_json():
        output.record(
            {
                "base": plan.base,
                "changes": changes,
                "change_count": plan.change_count,
                "summary": plan.summary,
                "weakens": plan.weakens,
                "at_once": plan.at_once,
                "touched": touched,
                "touched_count": plan.touched_count,
                "advice": list(plan.advice),
            }
        )
        return
    click.echo(f"Against version {plan.base}, which is in force:")
    _tell_changes(changes, plan.summary, plan.weakens)
    if touched:
        click.echo()
        output.rows("touched", touched, ("grant", "workloads", "effect"), empty="")
    for line in plan.advice:
        click.echo(f"note: {output.printable(line)}")


def _confirm(plan: policy_pb2.PlanPolicyResponse, yes: bool) -> None:
    """Say what will happen and ask. Raises CliError or click.Abort."""
    if yes:
        return
    if output.is_json():
        text = "Nobody was asked whether to apply it."
        raise CliError(USAGE, "NOT_CONFIRMED", text, "Say --yes; -o json asks nothing.")
    _tell_plan(plan)
    question = "Put it in force now?" if plan.at_once else "Propose it?"
    click.confirm(question, abort=True, err=True)


def _change(each: policy_pb2.PolicyChange) -> dict[str, Any]:
    from capsign_wire.adapter.v1 import policy_pb2

    name = policy_pb2.PolicyStrength.Name(each.strength).removeprefix("POLICY_STRENGTH_")
    return {"strength": name.lower(), "subject": each.subject, "words": each.words}


def _version(row: policy_pb2.PolicyVersion) -> dict[str, Any]:
    from capsign_wire.adapter.v1 import policy_pb2

    state = policy_pb2.PolicyState.Name(row.state).removeprefix("POLICY_STATE_")
    return {
        "version": row.version,
        "state": state.lower().replace("_", "-"),
        "digest": row.digest.hex(),
        "base": row.base,
        "proposer": row.proposer,
        "proposed_at": _time(row.proposed_at),
        "decided_by": row.decided_by,
        "decided_at": _time(row.decided_at),
    }


def _time(stamp: Any) -> str:
    return stamp.ToDatetime().isoformat(timespec="seconds") + "Z" if stamp.seconds else ""
