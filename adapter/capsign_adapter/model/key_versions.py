"""Versions of keys."""

from __future__ import annotations

from dataclasses import dataclass, replace

from capsign_wire.types.v1 import signing_pb2

from capsign_adapter.model.lifecycle import KEY_VERSION, KeyEvent, move


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


def moved(row: KeyVersionRow, event: KeyEvent, now_ms: int, next_activation: int) -> KeyVersionRow:
    """The version after an event at `now_ms`. `next_activation` is the activation epoch that the
    key gives next.

    The time of the first activation is kept; later ones do not change it. Every activation takes
    the key's next activation epoch; the end of a suspension gives the version back as it was.
    Raises FailureError ILLEGAL_TRANSITION.
    """
    state = move(KEY_VERSION, row.state, event)
    if event is not KeyEvent.ACTIVATE:
        return replace(row, state=state)
    activated_ms = row.activated_ms or now_ms
    return replace(row, state=state, activated_ms=activated_ms, activation_epoch=next_activation)
