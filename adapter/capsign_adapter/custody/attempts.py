"""Does the same for several things, so that one that fails keeps no other from being done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Thing = TypeVar("Thing")


def each(things: Iterable[Thing], action: Callable[[Thing], object]) -> None:
    """Call `action` for each of them. Raises what it raised last, once all were tried."""
    failed: Exception | None = None
    for thing in things:
        try:
            action(thing)
        except Exception as error:  # of the token or the store: the next may do
            failed = error
    if failed is not None:
        raise failed
