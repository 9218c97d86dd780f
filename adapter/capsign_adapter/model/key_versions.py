"""Versions of keys."""

from __future__ import annotations

from dataclasses import dataclass, replace

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign_adapter.model.lifecycle import KEY_VERSION, KeyEvent, move


@dataclass(frozen=True, slots=True)
class KeyVersionRow:
    """One version of a key. `check_value` is 8 bytes. `algorithms` are enum numbers. Times are
    milliseconds since 1970, 0 for never.

    `activation_epoch` is part of every context derived under this version. It is reserved when the
    version is published, so that its public keys can be derived and shown before they are used;
    one that is never published gets it at its activation. It is the version's number, unless an
    earlier release gave that to another version, and never given twice. 0: none yet. `derived`
    tells a derivation root from a key pair that signs in the token. `since_ms` is when it came into
    the state that it is in, `gone_ms` when a destroyed one had been shown to be gone from the
    token.
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
    published_ms: int = 0
    since_ms: int = 0
    gone_ms: int = 0

    @property
    def name(self) -> str:
        """As leaves and people name it: tenant/key/version."""
        return f"{self.tenant}/{self.key}/{self.version}"


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """Somebody makes this version of a key now: `holder` are 16 random bytes. After `until_ms`
    others take the claim for abandoned.
    """

    tenant: str
    key: str
    version: int
    holder: bytes
    until_ms: int


def moved(row: KeyVersionRow, event: KeyEvent, now_ms: int, next_activation: int) -> KeyVersionRow:
    """The version after an event at `now_ms`. `next_activation` is the activation epoch that the
    key gives next.

    To publish reserves that epoch, and is done once. An activation uses the epoch that is reserved;
    of a version that was not published it takes the next, and is its publication too. The end of a
    suspension gives the version back as it was. To sign again with what was deactivated, make a new
    version: the table has no way back. Raises FailureError ILLEGAL_TRANSITION.
    """
    state = move(KEY_VERSION, row.state, event)
    if event is KeyEvent.PUBLISH:
        if row.published_ms:
            detail = f"Version {row.version} of {row.key} is published already."
            raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
        return replace(row, published_ms=now_ms, activation_epoch=next_activation)
    if event is not KeyEvent.ACTIVATE:
        return replace(row, state=state, since_ms=now_ms)
    reserved = row.activation_epoch if not row.activated_ms else 0
    return replace(
        row,
        state=state,
        published_ms=row.published_ms or now_ms,
        activated_ms=row.activated_ms or now_ms,
        activation_epoch=reserved or next_activation,
        since_ms=now_ms,
    )


def gone(row: KeyVersionRow, now_ms: int) -> KeyVersionRow:
    """A destroyed version once the token has shown that it holds nothing of it. Raises FailureError
    ILLEGAL_TRANSITION for one that is not destroyed, or was shown before.
    """
    if not KEY_VERSION.is_final(row.state) or row.gone_ms:
        detail = f"Version {row.version} of {row.key} is not destroyed, or is known to be gone."
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    return replace(row, gone_ms=now_ms)
