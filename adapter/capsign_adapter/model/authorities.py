"""Certificate authorities."""

from __future__ import annotations

from dataclasses import dataclass, replace

from capsign_adapter.model.lifecycle import AUTHORITY, AuthorityEvent, AuthorityState, move


@dataclass(frozen=True, slots=True)
class AuthorityRow:
    """A certificate authority. `certificate` is DER; `check_value` is 8 bytes; times are
    milliseconds since 1970, 0 for not yet.

    `expires_ms` is the end of its certificate. `signed_until_ms` is written before a certificate is
    signed: no certificate of this authority is valid after that, until a later time is written.
    """

    version: int
    state: AuthorityState
    certificate: bytes
    label: str
    check_value: bytes
    created_ms: int
    expires_ms: int
    activated_ms: int = 0
    signed_until_ms: int = 0
    retired_ms: int = 0


def moved(row: AuthorityRow, event: AuthorityEvent, now_ms: int) -> AuthorityRow:
    """The authority after an event at `now_ms`. Raises FailureError ILLEGAL_TRANSITION."""
    state = move(AUTHORITY, row.state, event)
    if event is AuthorityEvent.ACTIVATE:
        return replace(row, state=state, activated_ms=now_ms)
    return replace(row, state=state, retired_ms=now_ms)
