"""Who fetched public keys, over any relational engine."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_adapter.model.key_readers import KeyReader
from capsign_adapter.store import key_readers
from capsign_adapter.store.engine import Connection, Engine


class RelationalKeyReaders(Engine[Connection]):
    """Implements `interfaces.key_readers.KeyReaders`."""

    def note_key_readers(self, seen: Sequence[KeyReader], now_ms: int) -> None:
        self.write(lambda tx, _: key_readers.note(tx, seen, now_ms))

    def key_readers(self, tenant: str, key: str) -> list[KeyReader]:
        return self.read(lambda tx: key_readers.of_key(tx, tenant, key))
