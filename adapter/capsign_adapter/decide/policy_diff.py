"""Changes of a policy as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_adapter.decide.policy_change import Change

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
    """Returns a sentence that counts the changes, and those that weaken or broaden."""
    counted = len([change for change in found if change.strength.weakens])
    match (len(found), counted):
        case 0, _:
            return "Nothing changes in what the policy says."
        case 1, 0:
            return "1 change, which weakens or broadens nothing."
        case total, 0:
            return f"{total} changes, none of which weakens or broadens anything."
        case 1, _:
            return "1 change, which weakens or broadens: somebody else has to approve."
        case total, 1:
            which = "1 of which weakens or broadens"
        case total, _:
            which = f"{counted} of which weaken or broaden"
    return f"{total} changes, {which}: somebody else has to approve."
