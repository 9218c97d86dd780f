"""What `capsign dev up` needs before it starts a process: directories, token, configuration, keys.
What exists is kept.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from capsign_wire import unix_socket

from capsign_cli.dev import layout as layouts
from capsign_cli.failures import UNAVAILABLE, USAGE, CliError
from capsign_cli.output import QUIET

CLIENTS = {
    "app": "/ns/demo/sa/app",
    "other": "/ns/demo/sa/other",
    "operator": "/operator/dev",
    "responder": "/responder/dev",
    "auditor": "/auditor/dev",
    "approver": "/approver/dev",
    "developer": "/developer/dev",
}
"""Client certificates that are made: two workloads, and one person for each role."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for. None means: as it was before, or else the default."""

    directory: Path
    workers: int | None
    store: str | None
    password_file: Path | None
    policy: Path | None


def refuse_name(directory: Path) -> None:
    """Raises CliError for a path that settings cannot hold: they are UTF-8, and SoftHSM's have no
    quoting. Called before anything is made.
    """
    told = f"{unix_socket.shown(directory)} cannot be named in settings: "
    advice = "Choose another --dir."
    try:
        str(directory).encode()
    except UnicodeEncodeError:
        raise CliError(USAGE, "DIRECTORY", f"{told}its name is not UTF-8.", advice) from None
    if set(str(directory)) & set("#=\n\r"):
        raise CliError(
            USAGE,
            "DIRECTORY",
            f"{told}SoftHSM's configuration takes no `#`, `=` or end of line in a path.",
            advice,
        )


def refuse_without_processes() -> None:
    """Raises CliError if the agent or the adapter is not installed. Called before anything is
    made.
    """
    for package in ("capsign_adapter", "capsign_agent"):
        if importlib.util.find_spec(package) is None:
            raise CliError(
                USAGE,
                "NOT_INSTALLED",
                f"It starts an adapter and an agent, and {package} is not installed.",
                "Run: pip install 'capsign-cli[dev]'",
            )


def make_directories(directory: Path, before: Mapping[str, Any] | None) -> layouts.Layout:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.geteuid() or directory.stat().st_mode & 0o077:
        raise CliError(
            USAGE,
            "DIRECTORY",
            f"Others can enter {directory}.",
            f"Run `chmod 700 {quote(str(directory))}`, or choose another.",
        )
    layout = layouts.Layout(directory, directory / "run")
    if before is not None and _is_ours(Path(before["run"])):
        layout = layouts.Layout(directory, Path(before["run"]))
    elif _too_long(layout):
        layout = layouts.Layout(directory, Path(tempfile.mkdtemp(prefix="capsign-")))
    for path in (layout.run, layout.state, layout.state / "journal", layout.logs):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return layout


def _is_ours(path: Path) -> bool:
    # A directory in /tmp that `dev down` removed may have been made anew by somebody else.
    return (
        path.is_dir()
        and not path.is_symlink()
        and path.stat().st_uid == os.geteuid()
        and not path.stat().st_mode & 0o077
    )


def _too_long(layout: layouts.Layout) -> bool:
    paths = [Path(f"{layout.health}.probe"), *(layout.socket(name) for name in layouts.CONTAINERS)]
    return any(unix_socket.fault(path) for path in paths)


def choose_store(
    wanted: Wanted, before: Mapping[str, Any] | None, layout: layouts.Layout
) -> tuple[str, Path | None]:
    """URL and password file of the store. It is never changed once keys exist, because the evidence
    would stay behind.
    """
    if before is None:
        return layouts.store_url(layout, wanted.store or "sqlite"), wanted.password_file
    store: str = before["store"]
    if wanted.store is not None and layouts.store_url(layout, wanted.store) != store:
        raise CliError(
            USAGE,
            "STORE",
            f"{layout.directory} has the store {store}.",
            "Choose another --dir for another store.",
        )
    kept = before["store_password_file"]
    return store, wanted.password_file or (Path(kept) if kept else None)


def refuse_change(wanted: Wanted, before: Mapping[str, Any], workers: int) -> None:
    if wanted.workers not in {None, workers} or wanted.policy is not None:
        advice = f"Run `capsign dev down --dir {quote(before['dir'])}` first."
        raise CliError(
            USAGE,
            "RUNS_ALREADY",
            "The number of workers and the policy cannot change while it runs.",
            advice,
        )


def make_token(directory: Path) -> dict[str, str]:
    here = Path(__file__).resolve()
    candidates = (
        here.parent.parent / "softhsm" / "init.py",
        here.parents[4] / "softhsm" / "init.py",
    )
    script = next((one for one in candidates if one.is_file()), None)
    if script is None:
        raise CliError(
            USAGE,
            "INCOMPLETE",
            "softhsm/init.py is not where this package looks.",
            "Install it again: `pip install --force-reinstall capsign-cli`.",
        )
    command = [
        sys.executable,
        str(script),
        "--dir",
        str(directory),
        "--label",
        "capsign",
        "-o",
        "json",
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        advice = "`make system-packages` installs what is missing, or says how."
        raise CliError(
            UNAVAILABLE, "TOKEN", made.stderr.strip().removeprefix("softhsm/init.py: "), advice
        )
    token: dict[str, str] = json.loads(made.stdout)
    return token


def clean_environ() -> dict[str, str]:
    """The environment for our processes, without CAPSIGN_*: the settings of one deployment must not
    override another's.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CAPSIGN_")}
    if ours.get("GRPC_VERBOSITY") == QUIET:
        del ours["GRPC_VERBOSITY"]
    return ours


def make_keys(
    layout: layouts.Layout, environ: Mapping[str, str], policy: Path, given: Path | None
) -> None:
    """Provision under this policy, which also checks it. On success it becomes the policy in force;
    otherwise the one before stays.
    """
    command = [
        sys.executable,
        "-m",
        "capsign_adapter",
        "--config",
        str(layout.config("adapter-1")),
        "provision",
    ]
    asked = dict(environ) | {"CAPSIGN_ADAPTER_POLICY": str(policy)}
    made = subprocess.run(command, capture_output=True, text=True, env=asked, check=False)
    if made.returncode == 0:
        if policy != layout.policy:
            policy.replace(layout.policy)
    else:
        last = (made.stderr.strip().splitlines() or ["It said nothing."])[-1]
        if given is not None:
            policy.unlink(missing_ok=True)
            last = last.replace(str(policy), str(given))
        raise CliError(
            UNAVAILABLE,
            "PROVISION",
            f"Keys could not be made. {last}",
            "Nothing runs. Put it right and try again.",
        )


def find_policy(layout: layouts.Layout, given: Path | None) -> Path:
    """The policy to provision: a copy of the one that was given, kept beside until it is known to
    be good; otherwise the one that is there, or the packaged one.
    """
    if given is not None:
        candidate = layout.policy.with_name(f"{layout.policy.name}.new")
        candidate.write_bytes(given.read_bytes())
        return candidate
    if not layout.policy.exists():
        packaged = importlib.resources.files("capsign_cli.dev") / "policy.yaml"
        layout.policy.write_bytes(packaged.read_bytes())
    return layout.policy
