"""The store, beside the turns: who works on a unary call has no turn while it waits there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capsign_adapter.store.interfaces.whole import Store

WAITED_FOR = frozenset({"control", "find", "resolve", "submit_audit", "hashes", "entries"})
"""What unary calls ask of it."""


class YieldingStore:
    """In front of a `Store`; what unary calls do not ask for passes."""

    def __init__(self, store: Store, aside: Callable[[], AbstractContextManager[object]]) -> None:
        """`aside` is around each wait for the store."""
        self._store = store
        self._aside = aside

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._waiting(found) if name in WAITED_FOR else found

    def _waiting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with self._aside():
                return method(*arguments)

        return call
