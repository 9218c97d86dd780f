"""Versions of keys."""

from __future__ import annotations

from dataclasses import dataclass

from capsign_wire.types.v1 import signing_pb2


@dataclass(frozen=True, slots=True)
class KeyVersionRow:
    """One version of a key. `check_value` is 8 bytes. `algorithms` are enum numbers.

    `activation_epoch` is part of every context derived under this version: it counts up each time
    any version of the key is activated, so that a version that is activated again (a rollback) does
    not give the subkeys of its earlier life. 0: never yet. `derived` tells a derivation root from a
    key pair that signs in the token.
    """

    tenant: str
    key: str
    version: int
    state: signing_pb2.KeyState.ValueType
    algorithms: tuple[int, ...]
    label: str
    check_value: bytes
    created_ms: int
    activated_ms: int = 0
    activation_epoch: int = 0
    derived: bool = True
