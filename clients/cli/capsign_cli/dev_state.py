"""The state file that `capsign dev up` leaves in a directory, and the option that names the
directory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import click

from capsign_cli.failures import USAGE, CliError

STATE_FILE = "capsign.json"
DEFAULT_DIR = ".demo"


STATE_KEYS = frozenset(
    {
        "dir",
        "run",
        "store",
        "store_password_file",
        "sockets",
        "adapters",
        "ca",
        "server_name",
        "clients",
        "processes",
        "log_key",
    }
)
"""Keys that every state file has."""

Command = TypeVar("Command", bound=Callable[..., Any])


def directory_option(command: Command) -> Command:
    """`--dir`: a directory of `capsign dev up`."""
    return click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path),
        envvar="CAPSIGN_DEV_DIR",
        default=DEFAULT_DIR,
        show_default=True,
        help="Directory of `capsign dev up`; also CAPSIGN_DEV_DIR.",
    )(command)


def load(directory: Path) -> dict[str, Any]:
    """The state file's content. Raises CliError if there is none, or it is damaged."""
    file = directory / STATE_FILE
    try:
        state = json.loads(file.read_text())
    except FileNotFoundError:
        advice = "Run `capsign dev up`, or say where to go with options; see --help."
        raise CliError(
            USAGE, "NOTHING_THERE", f"{directory} is not a directory of `capsign dev up`.", advice
        ) from None
    except ValueError:
        state = None
    if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
        advice = (
            f"End what runs there, remove {file}, and run `capsign dev up` again: it keeps "
            f"token, keys and evidence."
        )
        raise CliError(
            USAGE, "STATE_DAMAGED", f"{file} is damaged, or of another version of capsign.", advice
        )
    if Path(state["dir"]) != directory.resolve():
        # Its processes, store and sockets are the other one's: `dev down --purge` of a copy would
        # remove the original.
        text = (
            f"{directory} was moved or copied from {state['dir']}, and everything in it names "
            f"that path."
        )
        raise CliError(
            USAGE,
            "MOVED",
            text,
            "Move it back, or make a new one with `capsign dev up --dir` and another path.",
        )
    return state


def renewal(directory: Path) -> str:
    """What to do about certificates of this directory that have ended, as a sentence."""
    where = quote(str(directory))
    return f"`capsign dev down --dir {where}`, then `capsign dev up --dir {where}`, makes new ones."
