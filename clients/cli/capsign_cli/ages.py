"""How old something is, in words."""

from __future__ import annotations

DAY = 86_400


def words(seconds: float) -> str:
    """A length of time in one unit: "40 s", "5 min", "3 h", "12 d", "2.5 y"."""
    for unit, length, upto in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48), ("d", DAY, 700)):
        if seconds < upto * length:
            return f"{int(seconds / length)} {unit}"
    return f"{seconds / (365 * DAY):.1f} y"


def ago(then: float, now: float) -> str:
    """How long ago a time was; "never" for 0. Seconds since 1970."""
    return f"{words(max(0.0, now - then))} ago" if then else "never"


def share(begin: float, end: float, now: float) -> int | None:
    """How much of the time from `begin` to `end` is over, percent; None if there is no such
    time.
    """
    if not begin or end <= begin:
        return None
    return max(0, int(100 * (now - begin) / (end - begin)))
