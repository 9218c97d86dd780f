"""The part of a relational store that is about key versions: what each method does inside its one
transaction.
"""

from __future__ import annotations

from collections.abc import Callable

from capsign_adapter.model.key_versions import KeyClaim, KeyVersionRow
from capsign_adapter.model.lifecycle import KeyEvent
from capsign_adapter.store import key_claims, key_versions
from capsign_adapter.store.engine import Connection, Engine


class RelationalKeys(Engine[Connection]):
    """Implements `interfaces.key_versions.KeyVersions` and `KeyClaims`."""

    def key_versions(self) -> list[KeyVersionRow]:
        return self.read(key_versions.every)

    def add_key_version(
        self, row: KeyVersionRow, leaf: Callable[[int], bytes], now_ms: int, holder: bytes = b""
    ) -> tuple[int, int]:
        return self.write(lambda tx, head: key_versions.add(tx, head, row, leaf, now_ms, holder))

    def move_key_version(
        self, row: KeyVersionRow, event: KeyEvent, leaf: Callable[[int], bytes], now_ms: int
    ) -> tuple[int, int]:
        return self.write(lambda tx, head: key_versions.move(tx, head, row, event, leaf, now_ms))

    def prove_key_gone(
        self, row: KeyVersionRow, leaf: Callable[[int], bytes], now_ms: int
    ) -> tuple[int, int]:
        return self.write(lambda tx, head: key_versions.prove_gone(tx, head, row, leaf, now_ms))

    def key_claims(self) -> list[KeyClaim]:
        return self.read(key_claims.every)

    def claim_key(self, claim: KeyClaim, newest: int, now_ms: int) -> KeyClaim:
        return self.write(lambda tx, _: key_claims.claim(tx, claim, newest, now_ms))

    def adopt_key_claim(
        self, seen: KeyClaim, holder: bytes, until_ms: int, now_ms: int
    ) -> KeyClaim:
        return self.write(lambda tx, _: key_claims.adopt(tx, seen, holder, until_ms, now_ms))

    def end_key_claim(self, claim: KeyClaim) -> None:
        self.write(lambda tx, _: key_claims.end(tx, claim))
