"""What `capsign verify` asks an agent about: signatures, each with its algorithm, and the rule by
which they are enough.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from capsign_cli.failures import USAGE, CliError

Command = TypeVar("Command", bound=Callable[..., Any])

Signed = tuple[str, bytes]
"""The name of an algorithm, and a signature."""

MAX_SIGNED = 1 << 20
"""Largest answer of `capsign sign` that is read, bytes."""


def rule_options(command: Command) -> Command:
    """`--signature`, `--signed`, `--rule` and `--require`."""
    for decorate in reversed(
        (
            click.option(
                "-s",
                "--signature",
                multiple=True,
                metavar="[ALGORITHM:]BASE64|@FILE",
                help="A signature, or @ and the file with its bytes; twice for the two of a call, "
                "with their algorithms before them.",
            ),
            click.option(
                "--signed",
                type=click.Path(path_type=Path, exists=True, dir_okay=False),
                help="What `capsign sign -o json` printed: all its signatures.",
            ),
            click.option(
                "--rule",
                type=click.Choice(["either", "both", "required"]),
                default=None,
                help="One good signature is enough; both must be good, by two keys; or those that "
                "--require names.  [default: either]",
            ),
            click.option(
                "--require",
                multiple=True,
                metavar="ALGORITHM",
                help="A good signature by this algorithm is demanded, whatever else there is.",
            ),
        )
    ):
        command = decorate(command)
    return command


def signatures(
    given: tuple[str, ...], signed: Path | None, algorithm: str | None
) -> tuple[Signed, ...]:
    """The signatures. Raises click.UsageError and CliError for what is none."""
    found = [_one(text, algorithm) for text in given]
    found += [] if signed is None else _in_answer(signed)
    if not 1 <= len(found) <= 2:
        raise click.UsageError("Give --signature once or twice, or --signed, or --receipt.")
    return tuple(found)


def rule(name: str | None, required: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of `Signer.verify`. Raises click.UsageError."""
    if name == "required" and not required:
        raise click.UsageError("--rule required needs --require ALGORITHM.")
    if name == "either" and required:
        raise click.UsageError("--rule either demands nothing: leave --require out, or the rule.")
    return {"rule": "both" if name == "both" else "either", "required": required}


def _one(text: str, algorithm: str | None) -> Signed:
    from capsign_wire.algorithms import BY_NAME

    before, colon, rest = text.partition(":")
    named, value = (before, rest) if colon and before in BY_NAME else (algorithm, text)
    if named is None:
        raise click.UsageError(
            "Say its algorithm: --algorithm, or ALGORITHM: before the signature."
        )
    if value.startswith("@"):
        return named, Path(value[1:]).read_bytes()
    return named, of_base64(value, "--signature is base64, or @ and the name of a file.")


def _in_answer(path: Path) -> list[Signed]:
    advice = "Give the file that `capsign sign -o json` wrote."
    try:
        with path.open("rb") as file:
            answer = json.loads(file.read(MAX_SIGNED))
        every = [answer, *answer.get("others", ())]
        return [(str(one["algorithm"]), base64.b64decode(one["signature"])) for one in every]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        text = f"{path} is no answer of `capsign sign`."
        raise CliError(USAGE, "NOT_SIGNED", text, advice) from None


def of_base64(text: str, otherwise: str) -> bytes:
    """Base64 in either alphabet. Raises click.BadParameter that says `otherwise`."""
    try:
        return base64.b64decode(
            text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True
        )
    except (binascii.Error, ValueError):
        raise click.BadParameter(otherwise) from None
