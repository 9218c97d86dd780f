"""`capsign dev up`, `down` and `status`."""

from __future__ import annotations

import shutil
from pathlib import Path
from shlex import quote
from typing import Any

import click

from capsign_cli import dev_state, output
from capsign_cli.failures import UNAVAILABLE, CliError

DRAIN_SECONDS = 20.0
"""Seconds that processes have to end by themselves before they are killed."""


@click.group()
def dev() -> None:
    """Run everything on this machine, for development. Several sets can run side by side, each in a
    directory.
    """


@dev.command()
@dev_state.directory_option
@click.option(
    "--workers", type=click.IntRange(1, 16), help="Adapter processes.  [default: 1, or as before]"
)
@click.option(
    "--store", help="sqlite, or postgresql://user@host/database.  [default: sqlite, or as before]"
)
@click.option(
    "--store-password-file",
    type=click.Path(path_type=Path, exists=True, resolve_path=True),
    help="The database password.",
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path, exists=True),
    help="A policy in place of the one that comes with this.",
)
@output.option
def up(
    directory: Path,
    workers: int | None,
    store: str | None,
    store_password_file: Path | None,
    policy: Path | None,
) -> None:
    """Start a token, a CA, adapters and an agent, and print how to reach them. What is there
    already is kept. CAPSIGN_DEV_PORTS=20000-20999 says which ports new adapters get.
    """
    from capsign_cli.dev.bring_up import bring_up
    from capsign_cli.dev.prepare import Wanted

    with output.progress() as say:
        state = bring_up(Wanted(directory, workers, store, store_password_file, policy), say)
    if output.is_json():
        output.record(state)
        return
    shown = {
        **{f"socket {name}": path for name, path in state["sockets"].items()},
        "adapters": [one["address"] for one in state["adapters"]],
        "CA": state["ca"],
        "clients": ", ".join(state["clients"])
        + f" ({Path(state['clients']['app']['certificate']).parent})",
        "policy": state["policy"],
        "store": state["store"],
        "log key": state["log_key"],
        "processes": [f"{one['name']} {one['pid']}" for one in state["processes"]],
    }
    output.record(shown, title="capsign runs")
    where = quote(str(directory))
    click.echo(f"\nTry:  capsign handles --dir {where}\nEnd:  capsign dev down --dir {where}")


@dev.command()
@dev_state.directory_option
@output.option
def status(directory: Path) -> None:
    """Which processes run. Exit code 4 if one does not."""
    from capsign_cli.dev.bring_up import known_processes

    state = dev_state.load(directory)
    found = [
        {"process": one.name, "pid": one.pid, "running": one.alive}
        for one in known_processes(state)
    ]
    output.rows("processes", found, ("process", "pid", "running"), empty="Nothing was started.")
    missing = [str(one["process"]) for one in found if not one["running"]]
    if missing:
        advice = f"`capsign dev up --dir {quote(str(directory))}` starts what is missing."
        raise CliError(UNAVAILABLE, "NOT_RUNNING", f"Not running: {', '.join(missing)}.", advice)


@dev.command()
@dev_state.directory_option
@click.option(
    "--purge", is_flag=True, help="Remove the directory too: token, keys, store and evidence."
)
@output.option
def down(directory: Path, *, purge: bool) -> None:
    """End what `dev up` started: the agent first, so that its last records reach the adapters."""
    from capsign_cli.dev import processes
    from capsign_cli.dev.bring_up import known_processes
    from capsign_cli.dev.lock import alone_in

    dev_state.load(directory)  # or there is nothing to wait for
    with output.progress() as say, alone_in(directory.resolve(), say):
        state = dev_state.load(directory)
        known = known_processes(state)
        ended = [one.name for one in known if one.alive]
        killed = processes.end([one for one in known if one.name == "agent"], DRAIN_SECONDS)
        killed += processes.end([one for one in known if one.name != "agent"], DRAIN_SECONDS)
        leftovers = _leftovers(state)
        run = Path(state["run"])
        if not run.is_relative_to(Path(state["dir"])):
            shutil.rmtree(run, ignore_errors=True)  # made by mkdtemp, for sockets only
        if purge:
            shutil.rmtree(state["dir"])
    answer: dict[str, Any] = {
        "ended": ended,
        "killed": [one.name for one in killed],
        "leftovers": leftovers,
        "purged": purge,
    }
    output.record(answer)
    if killed:
        names = ", ".join(one.name for one in killed)
        raise CliError(
            UNAVAILABLE,
            "KILLED",
            f"Killed after {DRAIN_SECONDS:.0f} s: {names}.",
            "Their logs say what held them up.",
        )


def _leftovers(state: dict[str, Any]) -> list[str]:
    """Sockets that processes left behind when they were killed."""
    return [path for path in state["sockets"].values() if Path(path).exists()]
