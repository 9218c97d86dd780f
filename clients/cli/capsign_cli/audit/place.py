"""Where the evidence is that a command reads: the options that say it, and its errors as sentences.

Every command of `capsign audit` that reads evidence takes them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from capsign_cli import dev_state, endpoints, profiles
from capsign_cli.failures import REFUSED, UNAVAILABLE, USAGE, CliError

if TYPE_CHECKING:
    from capsign_evidence.archive import Archive, ArchiveError

Command = TypeVar("Command", bound=Callable[..., Any])


def options(command: Command) -> Command:
    """The argument ARCHIVE and `--password-file`, which arrive as `place` and `password_file`."""
    where = click.argument("place", metavar="ARCHIVE", envvar="CAPSIGN_ARCHIVE")
    password = click.option(
        "--password-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File with the password of a postgresql:// URL.",
    )
    return where(password(_reader(command)))


def options_or_adapter(command: Command) -> Command:
    """The same, where ARCHIVE may be left out: then a running adapter is asked, the one of a
    profile, of variables or of --dir. Its options arrive as `profile`, `identity` and `directory`.
    """
    where = click.argument("place", metavar="[ARCHIVE]", required=False, envvar="CAPSIGN_ARCHIVE")
    password = click.option(
        "--password-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File with the password of a postgresql:// URL.",
    )
    profile = click.option(
        "--profile",
        shell_complete=profiles.complete,
        help="Without ARCHIVE: adapter and files by a name of ~/.config/capsign/profiles.toml; "
        "also CAPSIGN_PROFILE.",
    )
    identity = click.option(
        "--as",
        "identity",
        default="responder",
        show_default=True,
        help="Without ARCHIVE: which client of --dir to be.",
    )
    return where(password(profile(identity(dev_state.directory_option(_reader(command))))))


@contextmanager
def opened_or_running(
    place: str | None, password_file: Path | None, options: dict[str, Any]
) -> Iterator[Archive]:
    """The archive, or the log of the adapter that the options mean, which are taken out of them.
    Raises CliError, and grpc.RpcError.
    """
    named = {name: options.pop(name) for name in ("profile", "identity", "directory")}
    if place is not None:
        with opened(place, password_file) as archive:
            yield archive
        return
    from capsign_cli.audit.adapter_archive import AdapterArchive

    files = dict.fromkeys(("address", "ca", "cert", "key", "server_name"))
    with endpoints.adapter_of({**files, **named}).channel() as channel:
        yield AdapterArchive(channel)


def _reader(command: Command) -> Command:
    """The options of an archive that is served over HTTPS, for `opened`."""
    for name, what in (
        ("reader-ca", "CA of an https:// archive"),
        ("reader-cert", "our certificate for it"),
        ("reader-key", "its private key"),
    ):
        command = click.option(
            f"--{name}",
            type=click.Path(path_type=Path, dir_okay=False),  # it may come later: a mounted file
            expose_value=False,
            callback=_remember,
            envvar=f"CAPSIGN_{name.upper().replace('-', '_')}",
            show_envvar=True,
            help=f"{what[0].upper()}{what[1:]}, PEM.",
        )(command)
    return command


def _remember(context: click.Context, option: click.Parameter, value: Path | None) -> None:
    """Keep a file for `opened`: only a served log needs it, whichever the command."""
    context.meta[f"capsign.{option.name}"] = value


@contextmanager
def opened(place: str, password_file: Path | None) -> Iterator[Archive]:
    """The archive, as long as it is read. Raises CliError for whatever is wrong with it, and warns
    where its first leaves are elsewhere.
    """
    from capsign_evidence.archive import ArchiveError, open_archive

    remote = "://" in place and not place.startswith("sqlite://")
    try:
        if place.startswith("https://"):
            archive = _served(place)
        else:
            archive = open_archive(place, password_file)
    except ArchiveError as error:
        raise _told(error, UNAVAILABLE if remote else USAGE) from error
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        text = "A store on PostgreSQL needs psycopg, which is not installed."
        advice = "Run: pip install 'capsign-cli[postgres]'"
        raise CliError(USAGE, "NOT_INSTALLED", text, advice) from None
    with archive:
        try:
            if archive.first:
                click.echo(_moved(archive.first), err=True)
            yield archive
        except ArchiveError as error:
            raise _told(error, UNAVAILABLE) from error


def _served(place: str) -> Archive:
    """The log that a listener serves over HTTPS, with the files that were given."""
    from capsign_cli.audit.served_log import Reader, ServedLog

    meta = click.get_current_context().meta
    ca, cert, key = (meta.get(f"capsign.reader_{name}") for name in ("ca", "cert", "key"))
    if ca is None or cert is None or key is None:
        text = "A log over HTTPS is read with a reader's certificate."
        advice = "Give --reader-ca, --reader-cert and --reader-key."
        raise CliError(USAGE, "CREDENTIALS_MISSING", text, advice)
    return ServedLog(place, Reader(ca, cert, key))


def named(place: str) -> str:
    """How a message or a page names the archive in a command: a URL may hold a password."""
    return "ARCHIVE" if "://" in place else shlex.quote(place)


def _moved(first: int) -> str:
    return (
        f"Warning: the first {first} entries of the log were moved to cold files and are not "
        f"looked at here. Name their directory too, after a comma: ARCHIVE,DIRECTORY"
    )


def _told(error: ArchiveError, otherwise: int) -> CliError:
    if error.damaged:
        return CliError(REFUSED, "EVIDENCE_DAMAGED", error.message, error.advice)
    return CliError(otherwise, "ARCHIVE", error.message, error.advice)
