"""Changes of a policy as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_adapter.decide.policy_change import Change, weakens

MAX_WORDS = 512
"""Longest line, characters."""


def lines(found: Sequence[Change]) -> list[str]:
    """Returns a line for each change: its strength, what it is about, and what happens to it."""
    return [line_of(change) for change in found]


def line_of(change: Change) -> str:
    """Returns the line of one change, cut to MAX_WORDS characters."""
    line = f"{change.strength.value:<8}  {change}"
    return line if len(line) <= MAX_WORDS else f"{line[: MAX_WORDS - 3]}..."


def summary(found: Sequence[Change]) -> str:
    """Returns a sentence that counts the changes by strength."""
    if not found:
        return "Nothing changes in what the policy says."
    counted = len([change for change in found if change.strength.weakens])
    total = f"{len(found)} change{'s' if len(found) > 1 else ''}"
    if not weakens(found):
        return f"{total}, none of which weakens or broadens anything."
    return f"{total}, of which {counted} weaken or broaden: somebody else has to approve."
