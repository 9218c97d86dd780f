"""The part of the relational store that has erased tenants."""

from __future__ import annotations

from collections.abc import Callable

from capsign_adapter.model.erasures import Erasure
from capsign_adapter.store import erasures
from capsign_adapter.store.engine import Connection, Engine


class RelationalErasures(Engine[Connection]):
    """Implements `interfaces.erasures.Erasures`."""

    def erasures(self) -> list[Erasure]:
        return self.read(erasures.every)

    def prove_erased(self, tenant: str, leaf: Callable[[int], bytes], now_ms: int) -> int:
        return self.write(lambda tx, head: erasures.prove_gone(tx, head, tenant, leaf, now_ms))
