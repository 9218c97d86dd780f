"""Durations as options take them."""

from __future__ import annotations

import re

import click

_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType[float]):
    """A time in seconds: a number, or one with a unit, as in 60, 60s, 5m or 1h."""

    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = _FORM.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is no time: say 60, 60s, 5m or 1h.", param, ctx)
        return float(found[1]) * _SECONDS[found[2] or "s"]
