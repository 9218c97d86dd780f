"""What a command answers: JSON for machines, a table for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])

_chosen = {"format": "table"}


def option(command: Command) -> Command:
    """The option `-o json|table`. It is read here, so that errors follow it too."""

    def choose(_: click.Context, __: click.Parameter, value: str) -> None:
        _chosen["format"] = value

    kinds = click.Choice(["table", "json"])
    decorate = click.option(
        "-o", "--output", type=kinds, default="table", show_default=True, is_eager=True, expose_value=False, callback=choose,
        help="Table for people, JSON for machines.",
    )  # fmt: skip
    return decorate(command)


def is_json() -> bool:
    """Whether the caller asked for JSON."""
    return _chosen["format"] == "json"


def record(values: Mapping[str, Any], *, title: str = "") -> None:
    """One thing: its fields, one a line."""
    if is_json():
        _dump(values)
        return
    from rich.markup import escape

    console = _console()
    if title:
        console.print(f"[bold]{escape(title)}[/]")
    width = max(len(key) for key in values)
    for key, value in values.items():
        # Never folded: values are there to be copied.
        lines = _text(value).rstrip("\n").split("\n")
        text = f"\n{' ' * (width + 2)}".join(lines)
        console.print(f"[bold]{key.replace('_', ' '):<{width}}[/]  {text}", soft_wrap=True)


def rows(name: str, values: Sequence[Mapping[str, Any]], columns: Sequence[str], *, empty: str) -> None:
    """Many things of one kind: a table, or `{name: [...]}`. The table shows `columns`; JSON has every field."""
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


def _console() -> Console:
    from rich.console import Console

    # A pipe has no width: what reads it wants whole lines.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 240)


def _dump(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _text(value: Any) -> str:
    from rich.markup import escape

    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(one) for one in value)
    return "-" if value is None or value == "" else escape(str(value))
