"""Which agent or adapter a command talks to: the options that say it, and what they mean.

Options count first, then variables and profiles, then what `capsign dev up` left in a directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from capsign_cli import dev_state, profiles
from capsign_cli.adapter_connection import Adapter
from capsign_cli.failures import USAGE, CliError

if TYPE_CHECKING:
    import grpc

Command = TypeVar("Command", bound=Callable[..., Any])


def socket_options(command: Command) -> Command:
    """`--socket`, `--dir` and `--container`: which agent's socket to use."""
    option = click.option(
        "--socket",
        type=str,
        help="The agent's socket; also CAPSIGN_SOCKET, unless --dir or --container is given.",
    )
    container = click.option(
        "--container", default="app", show_default=True, help="Which of the sockets of --dir."
    )
    return option(container(dev_state.directory_option(command)))


def socket_path(socket: str | None, directory: Path, container: str) -> str:
    """The socket that the options, the environment or the directory name, in this order."""
    told = _on_command_line("directory", "container")
    named = socket or (None if told else os.environ.get("CAPSIGN_SOCKET"))
    if named:
        return named
    sockets: dict[str, str] = dev_state.load(directory)["sockets"]
    if container not in sockets:
        raise CliError(
            USAGE,
            "NO_SUCH_SOCKET",
            f"There is no socket {container!r}.",
            f"There are: {', '.join(sockets)}.",
        )
    return sockets[container]


ADAPTER_PARAMETERS = (
    "address",
    "ca",
    "cert",
    "key",
    "server_name",
    "profile",
    "identity",
    "directory",
)
"""What `adapter_options` adds to a command."""


def adapter_options(command: Command) -> Command:
    """Options that name an adapter and a client certificate; each has a variable, a profile key, a
    default in `--dir`.
    """
    file = click.Path(path_type=Path, exists=True, dir_okay=False)
    for decorate in reversed(
        (
            click.option(
                "--adapter",
                "address",
                help="host:port of an adapter, for people: its `listen.admin_address`; "
                "also CAPSIGN_ADAPTER.",
            ),
            click.option("--ca", type=file, help="CA of its certificate, PEM; also CAPSIGN_CA."),
            click.option("--cert", type=file, help="Our certificate, PEM; also CAPSIGN_CERT."),
            click.option("--key", type=file, help="Its private key, PEM; also CAPSIGN_KEY."),
            click.option(
                "--server-name",
                help="DNS name in the adapter's certificate, where it is not the host of "
                "--adapter; "
                "also CAPSIGN_SERVER_NAME.",
            ),
            click.option(
                "--profile",
                shell_complete=profiles.complete,
                help="Adapter and files by a name of ~/.config/capsign/"
                "profiles.toml; also CAPSIGN_PROFILE.",
            ),
            click.option(
                "--as",
                "identity",
                default="operator",
                show_default=True,
                help="Which client of --dir to be.",
            ),
            dev_state.directory_option,
        )
    ):
        command = decorate(command)
    return command


@contextmanager
def completing(ctx: click.Context) -> Iterator[grpc.Channel]:
    """A channel to the adapter that a half-written command line means, for the completion of names:
    the defaults of its options are not there yet. Raises what connecting raises.
    """
    options = {name: ctx.params.get(name) for name in ADAPTER_PARAMETERS}
    options["directory"] = options["directory"] or Path(dev_state.DEFAULT_DIR)
    options["identity"] = options["identity"] or "operator"
    with ctx.scope(cleanup=False), adapter_of(options).channel() as channel:
        yield channel


def adapter_of(options: dict[str, Any]) -> Adapter:
    """The adapter that is meant. Takes its options out of `options`.

    What is given as an option counts before the profile that one names, that before a variable, and
    that before the profile of CAPSIGN_PROFILE. `--dir` as an option means that deployment. Raises
    CliError where they name none, or contradict each other.
    """
    given = {name: options.pop(name) for name in ("address", "ca", "cert", "key", "server_name")}
    profile, identity, directory = (
        options.pop(name) for name in ("profile", "identity", "directory")
    )
    of_directory = _on_command_line("directory", "identity")
    if of_directory and (profile or any(given.values())):
        text = "--dir and --as mean what `dev up` started."
        raise CliError(USAGE, "OPTIONS", text, "Leave them out, or give nothing else.")
    found = profiles.Named(**{name: str(value) for name, value in given.items() if value})
    if not of_directory:
        found = _completed(found, profile, os.environ)
    if (adapter := _of_files(found)) is not None:
        return adapter
    return _of_directory(dev_state.load(directory), identity, directory, found.log_key)


def _on_command_line(*names: str) -> bool:
    """Whether one of these options was given, and is not a default or a variable's value."""
    source = click.get_current_context().get_parameter_source
    return any(source(name) is ParameterSource.COMMANDLINE for name in names)


def _completed(
    found: profiles.Named, profile: str | None, environ: Mapping[str, str]
) -> profiles.Named:
    """With what profile and variables say where the options say nothing."""
    if profile:
        found = found.or_else(profiles.load(profile))
    found = found.or_else(profiles.of_environment(environ))
    if not profile and (name := environ.get(profiles.VARIABLE, "")):
        found = found.or_else(profiles.load(name))
    return found


def _of_files(found: profiles.Named) -> Adapter | None:
    """The adapter of an address and three files; None where none of them is named. Raises CliError
    where some are missing.
    """
    needed = {
        "--adapter": found.address,
        "--ca": found.ca,
        "--cert": found.cert,
        "--key": found.key,
    }
    if all(needed.values()):
        ca, cert, key = (_file(option, needed[option]) for option in ("--ca", "--cert", "--key"))
        return Adapter(found.address, ca, cert, key, found.server_name, found.log_key)
    if not any(needed.values()):
        return None
    missing = " and ".join(option for option, value in needed.items() if not value)
    text = f"--adapter, --ca, --cert and --key belong together, and {missing} is missing."
    advice = "Give it as an option, as a variable (CAPSIGN_ADAPTER and so on) or in a profile."
    raise CliError(USAGE, "OPTIONS", text, advice)


def _of_directory(state: dict[str, Any], identity: str, directory: Path, log_key: str) -> Adapter:
    """The adapters that `dev up` started, as one of its clients. Raises CliError for an unknown
    one.
    """
    clients = state["clients"]
    if identity not in clients:
        known = f"There are: {', '.join(clients)}."
        raise CliError(USAGE, "NO_SUCH_CLIENT", f"There is no client {identity!r}.", known)
    mine = clients[identity]
    files = Path(state["ca"]), Path(mine["certificate"]), Path(mine["private_key"])
    # Any of them will do, and one that has ended is no reason not to revoke. People have a listener
    # of their own, which lets nobody else in; a directory of an earlier version has none.
    own = "address" if "/ns/" in mine.get("spiffe_id", "") else "admin"
    address = "ipv4:" + ",".join(one.get(own) or one["address"] for one in state["adapters"])
    renewal = dev_state.renewal(directory)
    return Adapter(address, *files, state["server_name"], log_key or state["log_key"], renewal)


def _file(option: str, name: str) -> Path:
    if not Path(name).is_file():
        raise CliError(
            USAGE,
            "FILE",
            f"{option}: there is no file {name}.",
            "Check options, variables and profile.",
        )
    return Path(name)
