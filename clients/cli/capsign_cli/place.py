"""Where to find an agent or an adapter: options, the environment, or the state that `capsign dev
up` left in a directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from capsign_cli import profiles
from capsign_cli.failures import UNAVAILABLE, USAGE, CliError

if TYPE_CHECKING:
    import grpc

STATE_FILE = "capsign.json"
QUIET = "NONE"
"""GRPC_VERBOSITY: standard error is for our sentence, or our JSON. Processes that `dev up` starts
do not inherit it.
"""

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
"""What the state file has at least."""

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


def dev_state(directory: Path) -> dict[str, Any]:
    """What `dev up` left in the directory. Raises CliError if it left nothing."""
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
    return option(container(directory_option(command)))


def socket_path(socket: str | None, directory: Path, container: str) -> str:
    """The socket that the options, the environment or the directory name, in this order."""
    context = click.get_current_context()
    told = any(
        context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        for name in ("directory", "container")
    )
    named = socket or (None if told else os.environ.get("CAPSIGN_SOCKET"))
    if named:
        return named
    sockets: dict[str, str] = dev_state(directory)["sockets"]
    if container not in sockets:
        raise CliError(
            USAGE,
            "NO_SUCH_SOCKET",
            f"There is no socket {container!r}.",
            f"There are: {', '.join(sockets)}.",
        )
    return sockets[container]


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter and who we are to it."""

    address: str
    ca: Path
    certificate: Path
    private_key: Path
    server_name: str
    log_key: str
    renewal: str = "Get a new one."
    """What to do about a certificate that has ended."""

    @property
    def _target(self) -> str:
        from capsign_wire import addresses

        if self.address.startswith("ipv4:"):  # all of those that `dev up` started
            return self.address
        try:
            return addresses.target(self.address).dial
        except ValueError as error:
            raise CliError(USAGE, "ADDRESS", f"--adapter {error}.", "Name one adapter.") from None

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A channel over mTLS. Raises CliError or OSError if the files cannot be used."""
        import grpc
        from capsign_wire import channels
        from capsign_wire.bounds import MAX_ANSWER_BYTES

        from capsign_cli import credentials

        options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", MAX_ANSWER_BYTES)]
        if self.server_name:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        files = credentials.load(self.ca, self.certificate, self.private_key)
        try:
            with channels.secure(self._target, files, options) as channel:
                yield channel
        except (grpc.RpcError, grpc.FutureTimeoutError) as error:
            ended = (
                credentials.out_of_time(self.certificate, self.ca) if _unreachable(error) else ""
            )
            if ended:
                raise CliError(UNAVAILABLE, "CERTIFICATE_ENDED", ended, self.renewal) from None
            if clock := _clock(error):
                raise CliError(
                    UNAVAILABLE, "CLOCK", clock, "Set the clock that is wrong."
                ) from None
            raise


def _file(option: str, name: str) -> Path:
    if not Path(name).is_file():
        raise CliError(
            USAGE,
            "FILE",
            f"{option}: there is no file {name}.",
            "Check options, variables and profile.",
        )
    return Path(name)


def _clock(error: Exception) -> str:
    """Whether the adapter's certificate is out of its time by this machine's clock, as a sentence;
    empty if that is not known.
    """
    said = getattr(error, "details", lambda: "")() or ""
    if "certificate is not yet valid" in said:
        return "The adapter's certificate is not valid yet by this machine's clock."
    return (
        "The adapter's certificate has ended by this machine's clock."
        if "certificate has expired" in said
        else ""
    )


def _unreachable(error: Exception) -> bool:
    import grpc

    return not isinstance(error, grpc.RpcError) or error.code() in {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }


def renewal(directory: Path) -> str:
    """What to do about certificates of a directory that have ended."""
    where = quote(str(directory))
    return f"`capsign dev down --dir {where}`, then `capsign dev up --dir {where}`, makes new ones."


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
            directory_option,
        )
    ):
        command = decorate(command)
    return command


def adapter_of(options: dict[str, Any]) -> Adapter:
    """The adapter that is meant. Takes its options out of `options`.

    What is given as an option counts before the profile that one names, that before a variable, and
    that before the profile of CAPSIGN_PROFILE. `--dir` as an option means that deployment.
    """
    given = {name: options.pop(name) for name in ("address", "ca", "cert", "key", "server_name")}
    profile, identity, directory = (
        options.pop(name) for name in ("profile", "identity", "directory")
    )
    context = click.get_current_context()
    here = any(
        context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        for name in ("directory", "identity")
    )
    if here and (profile or any(given.values())):
        raise CliError(
            USAGE,
            "OPTIONS",
            "--dir and --as mean what `dev up` started.",
            "Leave them out, or give nothing else.",
        )
    found = profiles.Named(**{name: str(value) for name, value in given.items() if value})
    if not here:
        if profile:
            found = found.or_else(profiles.load(profile))
        found = found.or_else(profiles.of_environment(os.environ))
        if not profile and (name := os.environ.get(profiles.VARIABLE, "")):
            found = found.or_else(profiles.load(name))
    needed = {
        "--adapter": found.address,
        "--ca": found.ca,
        "--cert": found.cert,
        "--key": found.key,
    }
    if all(needed.values()):
        ca, cert, key = (_file(option, needed[option]) for option in ("--ca", "--cert", "--key"))
        return Adapter(found.address, ca, cert, key, found.server_name, found.log_key)
    if any(needed.values()):
        missing = " and ".join(option for option, value in needed.items() if not value)
        text = f"--adapter, --ca, --cert and --key belong together, and {missing} is missing."
        raise CliError(
            USAGE,
            "OPTIONS",
            text,
            "Give it as an option, as a variable (CAPSIGN_ADAPTER and so on) or in a profile.",
        )
    state = dev_state(directory)
    clients = state["clients"]
    if identity not in clients:
        raise CliError(
            USAGE,
            "NO_SUCH_CLIENT",
            f"There is no client {identity!r}.",
            f"There are: {', '.join(clients)}.",
        )
    mine = clients[identity]
    files = Path(state["ca"]), Path(mine["certificate"]), Path(mine["private_key"])
    # Any of them will do, and one that has ended is no reason not to revoke. People have a listener
    # of their own, which lets nobody else in; a directory of an earlier version has none.
    own = "address" if "/ns/" in mine.get("spiffe_id", "") else "admin"
    address = "ipv4:" + ",".join(one.get(own) or one["address"] for one in state["adapters"])
    return Adapter(
        address, *files, state["server_name"], found.log_key or state["log_key"], renewal(directory)
    )
