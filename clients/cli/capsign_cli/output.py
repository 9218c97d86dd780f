"""Writes what a command answers: JSON for machines, a table for people."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])

QUIET = "NONE"
"""Value of GRPC_VERBOSITY. Standard error is for our own sentence or JSON. Processes that `dev up`
starts do not inherit it.
"""


class CutOffError(Exception):
    """The reader of our output has gone."""


class UnwritableError(Exception):
    """An answer could not be written; what it reports was done."""


_chosen = {"format": "table"}


def option(command: Command) -> Command:
    """The option `-o json|table`. It is read eagerly, so that errors are written in the same
    format.
    """
    return option_of("table", "json")(command)


def option_of(*formats: str) -> Callable[[Command], Command]:
    """The option `-o` with other formats; the first is the default, and for people."""

    def choose(_: click.Context, __: click.Parameter, value: str) -> None:
        _chosen["format"] = value

    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        is_eager=True,
        expose_value=False,
        callback=choose,
        help=f"{formats[0].capitalize()} for people, JSON for machines.",
    )


def start(arguments: Sequence[str]) -> None:
    """Reset the format, and look for the option in these arguments, so that it holds even if other
    options are wrong.
    """
    pairs = set(pairwise(arguments))
    asked = pairs & {("-o", "json"), ("--output", "json")} or {"-ojson", "--output=json"} & set(
        arguments
    )
    _chosen["format"] = "json" if asked else "table"


def is_json() -> bool:
    """Whether the caller asked for JSON."""
    return _chosen["format"] == "json"


def is_csv() -> bool:
    """Whether the caller asked for CSV."""
    return _chosen["format"] == "csv"


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UnwritableError(error.strerror or "an error without a name") from error


def give_up() -> None:
    """Discard what cannot be written, so that it does not fail once more when the process ends."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def raw(value: bytes) -> None:
    """Write these bytes and nothing else."""
    with _writing():
        click.echo(value, nl=False)


@_writing()
def record(values: Mapping[str, Any], *, title: str = "") -> None:
    """Write one thing, a field on each line."""
    if is_json():
        _dump(values)
        return
    from rich.markup import escape

    console = _console()
    if title:
        console.print(f"[bold]{escape(printable(title))}[/]")
    width = max(len(key) for key in values)
    for key, value in values.items():
        # Never folded: values are there to be copied.
        lines = _text(value, lines=True).rstrip("\n").split("\n")
        text = f"\n{' ' * (width + 2)}".join(lines)
        console.print(f"[bold]{key.replace('_', ' '):<{width}}[/]  {text}", soft_wrap=True)


@_writing()
def rows(
    name: str, values: Sequence[Mapping[str, Any]], columns: Sequence[str], *, empty: str
) -> None:
    """Write many things of one kind: a table, or `{name: [...]}`. The table shows `columns`; JSON
    has every field.
    """
    if is_json():
        _dump({name: list(values)})
        return
    from rich.table import Table

    console = _console()
    if not values:
        console.print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for value in values:
        table.add_row(*(_text(value[column]) for column in columns))
    console.print(table)


@_writing()
def line(values: Mapping[str, Any], text: str) -> None:
    """One of many that come one after another: the text, or its values as JSON in one line."""
    click.echo(json.dumps(values) if is_json() else printable(text))


@_writing()
def text(line: str) -> None:
    """One line as it is, without what could control a terminal."""
    click.echo(printable(line))


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows what is under way on one line of standard error, and clears that
    line for the empty text; it shows nothing if that is no terminal.
    """
    watched = not is_json() and sys.stderr.isatty()

    def say(step: str) -> None:
        if watched:
            shown = f"\r\x1b[K  {printable(step)} …" if step else "\r\x1b[K"
            click.echo(shown, nl=False, err=True)

    try:
        yield say
    finally:
        if watched:
            click.echo("\r\x1b[K", nl=False, err=True)


def _console() -> Console:
    from rich.console import Console

    # A pipe has no width: what reads it wants whole lines.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 1 << 16)


def _dump(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def _text(value: Any, *, lines: bool = False) -> str:
    from rich.markup import escape

    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and value:
        return ", ".join(_text(one, lines=lines) for one in value)
    return (
        "-"
        if value is None or value in ("", [], ())
        else escape(printable(str(value), lines=lines))
    )


def printable(text: str, *, lines: bool = False) -> str:
    """The text without control characters, so that what a server or a store says cannot control the
    terminal, nor begin a line that looks like one of ours. `lines`: it may have several.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or (lines and letter == "\n") else f"\\x{ord(letter):02x}"
        for letter in text
    )
