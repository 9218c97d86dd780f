"""A proxy of the store for unary calls: a call holds no turn while it waits for the store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capsign_adapter.store.interfaces.whole import Store

WAITED_FOR = frozenset({"control", "find", "resolve", "submit_audit", "hashes", "entries"})
"""Methods that unary calls use."""


class YieldingStore:
    """A proxy of a `Store`. Methods that unary calls do not use are passed on."""

    def __init__(self, store: Store, yielded: Callable[[], AbstractContextManager[object]]) -> None:
        """`yielded` is entered around each call of WAITED_FOR."""
        self._store = store
        self._yielded = yielded

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._waiting(found) if name in WAITED_FOR else found

    def _waiting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with self._yielded():
                return method(*arguments)

        return call
