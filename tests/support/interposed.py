"""A real part, behind a door where a test may step in.

It is handed to whatever uses the part, in its place, and behaves as the part does until a test says
what a method does instead:

    rig.store.instead(commit=late)          # from now on
    with rig.store.for_now(commit=gone):    # until the block ends
        …
    rig.store.honestly("commit")            # as the part itself again

Only what others can ask of the part can be taken over, since the part itself is left alone: what it
calls of its own goes on as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Interposed:
    """Hands everything on to `part`, but for the methods that a test took over."""

    def __init__(self, part: Any) -> None:
        self.part = part
        """The part itself."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)

    def __len__(self) -> int:
        return len(self.part)

    def instead(self, **methods: Callable[..., Any]) -> None:
        """These are called in place of the part's own. Raises AttributeError if it has none."""
        for name, method in methods.items():
            getattr(self.part, name)
            setattr(self, name, method)

    def honestly(self, *names: str) -> None:
        """The part's own again."""
        for name in names:
            delattr(self, name)

    @contextmanager
    def for_now(self, **methods: Callable[..., Any]) -> Iterator[None]:
        """`instead`, until the block ends."""
        self.instead(**methods)
        try:
            yield
        finally:
            self.honestly(*methods)
