"""Errors as sentences for a person, and as exit codes."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import click

from capsign_cli import output

DONE, REFUSED, USAGE, UNKNOWN, UNAVAILABLE = 0, 1, 2, 3, 4
INTERRUPTED, CUT_OFF = 130, 141
"""Exit codes that shells report for a process ended by SIGINT or SIGPIPE."""

_NAMES = {
    REFUSED: "refused",
    USAGE: "usage",
    UNKNOWN: "unknown",
    UNAVAILABLE: "unavailable",
    INTERRUPTED: "interrupted",
}
_LOOK = "See that the adapter runs, and that the certificate files are the ones it trusts."
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class CliError(Exception):
    """An error that this program itself found. `advice` is what to do next."""

    def __init__(self, exit_code: int, reason: str, message: str, advice: str) -> None:
        self.told = Told(exit_code, reason, message, advice)
        super().__init__(message)

    @classmethod
    def saying(cls, what: Told) -> CliError:
        """The error that says just this."""
        error = cls(what.exit_code, what.reason, what.message, what.advice)
        error.told = what
        return error


@dataclass(frozen=True, slots=True)
class Told:
    """What is printed about an error; nothing if `message` is empty."""

    exit_code: int
    reason: str
    message: str
    advice: str = ""
    field: str = ""
    intent: str = ""
    outcome: str = ""
    """In one word, where the exit code does not say it."""

    @property
    def word(self) -> str:
        return self.outcome or _NAMES[self.exit_code]


def told(error: BaseException) -> Told | None:
    """What to say about an error; None for one that is a defect of ours."""
    for tell in (_of_command, _of_import, _of_client, _of_call, _of_system):
        if (said := tell(error)) is not None:
            return said
    return None


@contextmanager
def predicate() -> Iterator[None]:
    """Around a command that asks whether something is so, and answers with exit code 0 or 1: who is
    refused has no answer. That is told in the same words, with exit code 3.
    """
    try:
        yield
    except Exception as error:
        said = told(error)
        if said is None or said.exit_code != REFUSED:
            raise
        raise CliError.saying(replace(said, exit_code=UNKNOWN, outcome=said.word)) from error


def _of_command(error: BaseException) -> Told | None:
    """Errors of this program, of click, and of whoever runs it."""
    match error:
        case CliError():
            return error.told
        case KeyboardInterrupt():
            text = "Ended by Ctrl-C. A change that was under way may have happened."
            advice = "If this command changes something, look before you repeat it."
            return Told(INTERRUPTED, "INTERRUPTED", text, advice)
        case click.Abort():
            advice = "Where nobody can answer, --yes says it."
            return Told(REFUSED, "NOT_CONFIRMED", "Nothing was done.", advice)
        case output.CutOffError():
            return Told(CUT_OFF, "CUT_OFF", "")
        case output.UnwritableError():
            text = f"It was done, but its answer could not be written: {error}."
            return Told(UNKNOWN, "OUTPUT", text, "Make room for it.")
        case click.ClickException():
            context = getattr(error, "ctx", None)
            where = context.command_path if context is not None else "capsign"
            return Told(USAGE, "USAGE", error.format_message(), f"See `{where} --help`.")
    return None


def _of_import(error: BaseException) -> Told | None:
    """A library that is not installed. Comes before the functions that import libraries
    themselves.
    """
    if not isinstance(error, ModuleNotFoundError):
        return None
    name = (error.name or "a library").partition(".")[0]
    text = f"It needs {name}, which is not installed."
    return Told(USAGE, "NOT_INSTALLED", text, "Run: pip install capsign-cli")


def _of_client(error: BaseException) -> Told | None:
    """Errors of the client library, for a call to an agent."""
    from capsign.errors import CapsignError, Refused, Unknown

    if not isinstance(error, CapsignError):
        return None
    code = UNAVAILABLE
    if isinstance(error, Refused):
        code = REFUSED
    elif isinstance(error, Unknown):
        code = UNKNOWN
    text = error.message.removesuffix(error.advice).strip() if error.advice else error.message
    return Told(code, error.reason, text, error.advice, error.field, error.intent_id.hex())


def _of_call(error: BaseException) -> Told | None:
    """Errors of a call to an adapter: its typed failure, or gRPC's."""
    from capsign_wire.failures import FailureError

    if isinstance(error, FailureError):
        return _of_failure(error)
    import grpc

    if isinstance(error, grpc.RpcError):
        typed = FailureError.from_rpc(error)
        return _of_failure(typed) if typed is not None else _of_transport(error)
    if isinstance(error, grpc.FutureTimeoutError):
        return Told(UNAVAILABLE, "UNREACHABLE", "No answer from the adapter.", _LOOK)
    return None


def _of_system(error: BaseException) -> Told | None:
    """Errors of the operating system."""
    if not isinstance(error, OSError):
        return None
    if error.errno in _FULL:
        text = f"{error.filename or 'the disk'}: {error.strerror}"
        return Told(UNAVAILABLE, "DISK_FULL", text, "Free some space and run it again.")
    if error.errno == errno.EBADF and not error.filename:
        text = "A standard stream that this needs is closed."
        return Told(USAGE, "STREAM_CLOSED", text, "Leave it open, or use /dev/null.")
    text = f"{error.filename or 'a file'}: {error.strerror}"
    return Told(USAGE, "FILE", text, "Check the path and who may read it.")


def _of_failure(error: object) -> Told:
    from capsign_wire.failures import FailureError
    from capsign_wire.types.v1 import failures_pb2 as pb

    assert isinstance(error, FailureError)
    codes = {pb.OUTCOME_REFUSED: REFUSED, pb.OUTCOME_UNKNOWN: UNKNOWN}
    advice = error.advice
    return Told(
        codes.get(error.outcome, UNAVAILABLE),
        error.row.name,
        error.detail.removesuffix(advice).strip(),
        advice,
        error.field,
    )


def _of_transport(error: object) -> Told:
    code = getattr(error, "code", lambda: None)()
    name = getattr(code, "name", "UNKNOWN")
    if name in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}:
        return Told(UNAVAILABLE, "UNREACHABLE", "No answer from the adapter.", _LOOK)
    return Told(UNAVAILABLE, name, "The connection failed.", _LOOK)


def show(what: Told) -> None:
    """Write an error to standard error: an object as JSON, or two lines of text."""
    if output.is_json():
        fields = {
            "outcome": what.word,
            "reason": what.reason,
            "message": what.message,
            "advice": what.advice,
        }
        more = {"field": what.field, "intent_id": what.intent}
        sys.stderr.write(
            json.dumps(
                {"error": {**fields, **{key: value for key, value in more.items() if value}}}
            )
            + "\n"
        )
        return
    where = f" (field {what.field})" if what.field else ""
    text = f"{what.word}: {what.reason}{where}. {what.message}"
    # What a log said last stands on a line of its own, and ends as it ended.
    text = text if text.endswith("\n") else text.rstrip(". ") + ".\n"
    sys.stderr.write(output.printable(text, lines=True))
    if what.advice:
        sys.stderr.write(output.printable(f"  → {what.advice}\n", lines=True))
    if what.exit_code == UNKNOWN and what.intent:
        sys.stderr.write(f"  intent {what.intent}\n")
