"""Which adapter, and who we are to it, by a name: variables, and a file of profiles.

`$XDG_CONFIG_HOME/capsign/profiles.toml` (`~/.config` without the variable) has a table for each
name:

    [production]
    adapter = "kms.example.org:7443"
    ca = "production/ca.pem"            # beside this file, or from the root, or from ~
    cert = "production/responder.pem"
    key = "production/responder.key"
    server_name = "kms.example.org"     # where it is not the host of `adapter`
    log_key = "kms.example.org/log+…"
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsign_cli.failures import USAGE, CliError

if TYPE_CHECKING:
    import click

VARIABLE = "CAPSIGN_PROFILE"
"""The variable that names a profile if no option does."""

_VARIABLES = {
    "address": "CAPSIGN_ADAPTER",
    "ca": "CAPSIGN_CA",
    "cert": "CAPSIGN_CERT",
    "key": "CAPSIGN_KEY",
    "server_name": "CAPSIGN_SERVER_NAME",
    "log_key": "CAPSIGN_LOG_KEY",
}
_KEYS = {
    "adapter": "address",
    "ca": "ca",
    "cert": "cert",
    "key": "key",
    "server_name": "server_name",
    "log_key": "log_key",
}
_FILES = frozenset({"ca", "cert", "key"})


@dataclass(frozen=True, slots=True)
class Named:
    """Values that an option, variable or profile gives; empty ones are not given."""

    address: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    log_key: str = ""

    def or_else(self, other: Named) -> Named:
        """These values, and the other's for those not given. The server name is taken only together
        with its address.
        """
        mine = {
            one.name: getattr(self, one.name) or getattr(other, one.name) for one in fields(self)
        }
        if self.address and self.address != other.address:
            mine["server_name"] = self.server_name
        return Named(**mine)


def of_environment(environ: Mapping[str, str]) -> Named:
    return Named(
        **{name: environ.get(variable, "").strip() for name, variable in _VARIABLES.items()}
    )


def file() -> Path:
    """The path of the profiles file."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return (
        (Path(home) if Path(home).is_absolute() else _at_home("~/.config"))
        / "capsign"
        / "profiles.toml"
    )


def _at_home(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # a user of a container, whom nothing names
        told = f"{name} cannot be found: this user has no home directory."
        raise CliError(
            USAGE, "NO_HOME", told, "Set HOME, or XDG_CONFIG_HOME and paths from the root."
        ) from None


def load(name: str) -> Named:
    """The profile of this name. Raises CliError."""
    path = file()
    profile = _read(path).get(name)
    if not isinstance(profile, dict):
        there = ", ".join(sorted(_read(path))) or "none"
        raise CliError(
            USAGE, "NO_SUCH_PROFILE", f"{path} has no profile {name!r}.", f"There are: {there}."
        )
    values = {}
    for key, value in profile.items():
        if key not in _KEYS or not isinstance(value, str):
            near = get_close_matches(key, _KEYS, 1)
            advice = (
                f"Did you mean {near[0]}?"
                if near and near[0] != key
                else f"A profile has {', '.join(_KEYS)}, each a text."
            )
            raise CliError(USAGE, "PROFILE", f"{path}: {name}.{key} is not understood.", advice)
        values[_KEYS[key]] = str(path.parent / _at_home(value)) if key in _FILES else value
    return Named(**values)


def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Names of profiles, for a shell."""
    try:
        return sorted(name for name in _read(file()) if name.startswith(incomplete))
    except (CliError, OSError):
        return []


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CliError(
            USAGE,
            "NO_PROFILES",
            f"There is no file {path}.",
            "docs/operations/responders.md shows one.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CliError(
            USAGE,
            "PROFILE",
            f"{path} is no TOML: {error}.",
            "docs/operations/responders.md shows one.",
        ) from None
