"""Durations as people write them: "30s", "15m", "1h30m", "250ms"."""

from __future__ import annotations

import re

PATTERN = r"^([0-9]{1,9}(ms|s|m|h))+$"
"""What a duration looks like, for schemas."""

_PART = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_WHOLE = re.compile(PATTERN.removesuffix("$") + r"\Z")
_MILLIS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def to_millis(text: str) -> int:
    """Milliseconds. Raises ValueError with a sentence for a person."""
    if not _WHOLE.match(text):
        raise ValueError(
            f"{text[:32]!r} is not a duration. Write numbers with units, as in 30s, 15m or 1h30m."
        )
    return sum(int(count) * _MILLIS[unit] for count, unit in _PART.findall(text))


def to_text(millis: int) -> str:
    """The shortest form in one unit: 900000 is "15m"."""
    for unit in ("h", "m", "s"):
        if millis and millis % _MILLIS[unit] == 0:
            return f"{millis // _MILLIS[unit]}{unit}"
    return f"{millis}ms"
