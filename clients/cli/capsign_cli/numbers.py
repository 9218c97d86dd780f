"""Numbers as options take them, each within what the wire or a store can hold."""

from __future__ import annotations

import math

import click

MOST_64, MOST_32 = (1 << 63) - 1, (1 << 32) - 1


def whole(least: int, most: int = MOST_64) -> click.IntRange:
    """A whole number."""
    return click.IntRange(least, most)


class Seconds(click.FloatRange):
    """A number of seconds. What is no number ("nan") compares with nothing, and is refused."""

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = float(super().convert(value, param, ctx))  # type: ignore[arg-type] # it takes text
        if math.isnan(found):
            self.fail(f"{value!r} is no number.", param, ctx)
        return found
