"""`capsign rollout`: move a key to another version or algorithm, step by step, and back."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from capsign_cli import endpoints, numbers, output, rollout_view, rollout_watch
from capsign_cli.durations import Duration
from capsign_cli.failures import REFUSED, UNKNOWN, USAGE, CliError
from capsign_cli.patience import patient

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb
    from capsign_wire.adapter.v1 import rollouts_pb2_grpc

Command = TypeVar("Command", bound=Callable[..., Any])

SECONDS = 30.0
"""Longest wait for an answer: what is aborted is out of force on every replica by then."""

COUNT = numbers.whole(0, numbers.MOST_32)
NUMBER = numbers.whole(0, numbers.MOST_32)
"""Of a rollout; 0: the newest."""

COLUMNS = ("rollout", "number", "stage", "pace", "from", "to", "workloads", "started_at")
STEP_COLUMNS = ("at", "act", "stage", "actor", "new_side", "old_side", "leaf_index")


@click.group()
def rollout() -> None:
    """Move a key to a new version or another algorithm, step by step: publish, wait for verifiers,
    canary, both signatures, promote, retire.

    KEY is tenant/key. Stages and triggers are those of the policy; a breached trigger rolls back by
    itself. To abort gives back what was before while it is under way; to go back behind one that is
    done is to undo it, which is a rollout too.
    """


def _complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The keys that there are. Nothing if no adapter can be asked."""
    from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc

    try:
        with endpoints.completing(ctx) as channel:
            stub = admin_pb2_grpc.AdminServiceStub(channel)
            found = stub.ListKeys(admin_pb2.ListKeysRequest(), timeout=2.0).keys
    except Exception:  # whatever hinders: a shell that completes is no place for a message
        return []
    names = [f"{key.tenant}/{key.name}" for key in found]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _of_key(command: Command) -> Command:
    """A command about the rollout of one key."""
    with_options = endpoints.adapter_options(output.option(command))
    return click.argument("name", metavar="KEY", shell_complete=_complete)(with_options)


@rollout.command()
@click.option("--algorithm", default="", help="Move calls that leave the algorithm open to this.")
@click.option("--new-version", is_flag=True, help="With --algorithm: to a new version too.")
@click.option("--overtake", is_flag=True, help="End the rollout that is under way.")
@click.option("--yes", is_flag=True, help="Do not ask before another is overtaken.")
@_of_key
def start(
    name: str, algorithm: str, new_version: bool, overtake: bool, yes: bool, **options: Any
) -> None:
    """Begin a rollout: to a new version, or with --algorithm to that one."""
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb
    from capsign_wire.algorithms import BY_NAME
    from capsign_wire.types.v1 import algorithms_pb2

    if algorithm and algorithm not in BY_NAME:
        raise click.UsageError(f"There is no algorithm {algorithm}: {', '.join(sorted(BY_NAME))}.")
    if new_version and not algorithm:
        raise click.UsageError("Without --algorithm it is a new version anyway.")
    if overtake:
        _ask(yes, f"A rollout of {name} that is under way ends, and all sign as before. Go on?")
    number = BY_NAME[algorithm].number if algorithm else algorithms_pb2.ALGORITHM_UNSPECIFIED
    request = pb.StartRolloutRequest(
        **_request(name), algorithm=number, new_version=new_version, overtake=overtake
    )
    with _asked(options) as stub:
        answer = stub.StartRollout(request, timeout=SECONDS)
    _tell(answer.rollout)


@rollout.command("list")
@click.option("--tenant", default="", help="Only this tenant.")
@endpoints.adapter_options
@output.option
def list_rollouts(tenant: str, **options: Any) -> None:
    """List rollouts, newest first."""
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb

    with _asked(options) as stub:
        found = stub.ListRollouts(pb.ListRolloutsRequest(tenant=tenant), timeout=SECONDS).rollouts
    values = [rollout_view.values_of(one) for one in found]
    output.rows("rollouts", values, COLUMNS, empty="No rollouts.")


@rollout.command()
@click.option("-w", "--watch", is_flag=True, help="Go on until it has ended.")
@click.option(
    "--number", type=NUMBER, default=0, help="Which rollout of the key; the newest if not given."
)
@_of_key
def get(name: str, watch: bool, number: int, **options: Any) -> None:
    """Show where a rollout is."""
    with _asked(options) as stub:
        if not watch:
            _tell(_get(stub, name, number).rollout)
        elif output.is_json() or not sys.stdout.isatty():
            rollout_watch.lines(patient(lambda: _get(stub, name, number)))
        else:
            rollout_watch.live(patient(lambda: _get(stub, name, number)))


@rollout.command()
@click.option(
    "--timeout", type=Duration(), default=0.0, help="Wait so long for its end: 60, 60s or 5m."
)
@click.option(
    "--number", type=NUMBER, default=0, help="Which rollout of the key; the newest if not given."
)
@_of_key
def status(name: str, timeout: float, number: int, **options: Any) -> None:
    """Say whether a rollout is healthy: exit code 0 if it is done; 1 if it was aborted, rolled
    back or overtaken, or is paused; 3 if it is under way. An adapter that does not answer is asked
    again until the time is over.
    """
    end = time.monotonic() + timeout
    with _asked(options) as stub:
        look = patient(lambda: _get(stub, name, number), timeout)
        found = look().rollout
        while not rollout_view.is_over(found) and found.pace <= 1 and time.monotonic() < end:
            time.sleep(min(rollout_watch.LOOK_SECONDS, max(0.0, end - time.monotonic())))
            found = look().rollout
    stage = rollout_view.stage_of(found)
    if stage == rollout_view.DONE:
        _tell(found)
        return
    line = rollout_view.line_of(found)
    if stage in rollout_view.ENDED_OTHERWISE or found.pace > 1:
        after = ""
        if stage == "overtaken" and found.newest > found.number:
            after = f" Rollout {found.newest} came before its end."
        what = stage.upper().replace("-", "_") if found.pace <= 1 else "PAUSED"
        advice = f"See `capsign rollout history {name}`."
        raise CliError(REFUSED, f"ROLLOUT_{what}", f"{line}.{after}", advice)
    raise CliError(UNKNOWN, "ROLLOUT_UNDER_WAY", f"{line}.", "Wait longer with --timeout.")


@rollout.command()
@_of_key
def pause(name: str, **options: Any) -> None:
    """Let it go no further. Who signs with what is new goes on; a breached trigger still rolls
    back.
    """
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb

    with _asked(options) as stub:
        _tell(stub.PauseRollout(pb.PauseRolloutRequest(**_request(name)), timeout=SECONDS).rollout)


@rollout.command()
@_of_key
def resume(name: str, **options: Any) -> None:
    """Let it go on."""
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb

    with _asked(options) as stub:
        _tell(
            stub.ResumeRollout(pb.ResumeRolloutRequest(**_request(name)), timeout=SECONDS).rollout
        )


@rollout.command()
@click.option("--full", is_flag=True, help="All workloads at once.")
@click.option("--yes", is_flag=True, help="Do not ask before --full.")
@_of_key
def promote(name: str, full: bool, yes: bool, **options: Any) -> None:
    """Take the next step now, without waiting for its time and samples."""
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb

    with _asked(options) as stub:
        seen = _get(stub, name, 0).rollout
        if full and not rollout_view.is_over(seen):
            _ask(yes, f"All {seen.workloads} workloads of {name} sign with what is new. Go on?")
        request = pb.PromoteRolloutRequest(**_request(name), full=full, revision=seen.revision)
        _tell(stub.PromoteRollout(request, timeout=SECONDS).rollout)


@rollout.command()
@_of_key
def abort(name: str, **options: Any) -> None:
    """End it: all sign as before, on every replica, when this answers. This is not undo: what is
    done already stays.
    """
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb

    with _asked(options) as stub:
        ended = stub.AbortRollout(pb.AbortRolloutRequest(**_request(name)), timeout=SECONDS).rollout
    note = "Aborted, not undone: a rollout that is done is taken back with `capsign rollout undo`."
    _tell(ended, note)


@rollout.command()
@click.option(
    "--to",
    type=numbers.whole(1, numbers.MOST_32),
    help="Go back to what this rollout led to; see `history`.",
)
@_of_key
def undo(name: str, to: int | None, **options: Any) -> None:
    """Begin a rollout back: to what was before the last one that is done, or to what rollout --to
    led to. A version that was deactivated does not come back: a new one is made.
    """
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb

    with _asked(options) as stub:
        _tell(
            stub.UndoRollout(
                pb.UndoRolloutRequest(**_request(name), to=to or 0), timeout=SECONDS
            ).rollout
        )


@rollout.command()
@click.option(
    "--version", required=True, type=numbers.whole(1, numbers.MOST_32), help="Of the key."
)
@click.option("--algorithm", required=True, help="That the signatures are of.")
@click.option("--verified", type=COUNT, default=0, help="How many signatures verified.")
@click.option("--failed", type=COUNT, default=0, help="How many did not.")
@_of_key
def report(
    name: str, version: int, algorithm: str, verified: int, failed: int, **options: Any
) -> None:
    """Count signatures that were verified elsewhere, for the trigger of failed verifications."""
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb
    from capsign_wire.algorithms import BY_NAME

    if algorithm not in BY_NAME:
        raise click.UsageError(f"There is no algorithm {algorithm}: {', '.join(sorted(BY_NAME))}.")
    request = pb.ReportVerificationsRequest(
        **_request(name),
        version=version,
        algorithm=BY_NAME[algorithm].number,
        verified=verified,
        failed=failed,
    )
    with _asked(options) as stub:
        answer = stub.ReportVerifications(request, timeout=SECONDS)
    counted = {"reported": name, "verified": verified, "failed": failed}
    output.record({**counted, "leaf_index": answer.leaf_index})


@rollout.command()
@click.option(
    "--number", type=NUMBER, default=0, help="The steps of this rollout, with their figures."
)
@_of_key
def history(name: str, number: int, **options: Any) -> None:
    """List the rollouts of a key, or the steps of one."""
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb

    with _asked(options) as stub:
        if number:
            steps = _get(stub, name, number).steps
            output.rows("steps", [_step(each) for each in steps], STEP_COLUMNS, empty="No steps.")
            return
        request = pb.ListRolloutsRequest(**_request(name))
        found = stub.ListRollouts(request, timeout=SECONDS).rollouts
    values = [rollout_view.values_of(one) for one in found]
    output.rows("rollouts", values, COLUMNS, empty=f"No rollouts of {name}.")


def _get(
    stub: rollouts_pb2_grpc.RolloutServiceStub, name: str, number: int
) -> pb.GetRolloutResponse:
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb

    return stub.GetRollout(pb.GetRolloutRequest(**_request(name), number=number), timeout=SECONDS)


@contextmanager
def _asked(options: dict[str, Any]) -> Iterator[rollouts_pb2_grpc.RolloutServiceStub]:
    from capsign_wire.adapter.v1 import rollouts_pb2_grpc

    with endpoints.adapter_of(options).channel() as channel:
        yield rollouts_pb2_grpc.RolloutServiceStub(channel)


def _request(name: str) -> dict[str, str]:
    tenant, slash, key = name.partition("/")
    if not (tenant and slash and key) or "/" in key:
        raise click.UsageError(f"{name!r} is no tenant/key.")
    return {"tenant": tenant, "key": key}


def _ask(yes: bool, question: str) -> None:
    if yes:
        return
    if output.is_json():
        raise CliError(USAGE, "NOT_CONFIRMED", question, "Say --yes; -o json asks nothing.")
    click.confirm(question, abort=True, err=True)


def _tell(found: pb.Rollout, note: str = "") -> None:
    values = rollout_view.values_of(found)
    if not output.is_json():
        shown = ("rollout", "number", "stage", "pace", "from", "to", "workloads", "verdict")
        values = {name: values[name] for name in shown} | {
            "stage": f"{rollout_view.where(found)}: {rollout_view.WORDS[values['stage']]}",
            "time_left": rollout_view.left(found.remaining_ms) if found.remaining_ms else "",
            "triggers": "\n".join(values["triggers"]),
            "new_side": rollout_view.side_text(found.new_side),
            "old_side": rollout_view.side_text(found.old_side),
        }
        if verifiers := rollout_view.verifiers_text(found):
            values["verifiers"] = verifiers
        if found.left_behind:
            values["grants_left_behind"] = list(found.left_behind)
    output.record(values | ({"note": note} if note else {}))


def _step(step: pb.RolloutStep) -> dict[str, Any]:
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb

    return {
        "revision": step.revision,
        "at": rollout_view.time_text(step.at.ToMilliseconds()),
        "act": step.act,
        "stage": rollout_view.stage_of(pb.Rollout(stage=step.stage)),
        "actor": step.actor,
        "epoch": step.epoch,
        "leaf_index": step.leaf_index,
        "new_side": rollout_view.side_text(step.after),
        "old_side": rollout_view.side_text(step.before),
    }
