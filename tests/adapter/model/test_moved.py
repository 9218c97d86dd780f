"""What a row becomes by an event, without a database."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_adapter.model import authorities, key_versions
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import (
    AUTHORITY,
    KEY_VERSION,
    AuthorityEvent,
    AuthorityState,
    HandleState,
    KeyEvent,
    handle_state,
)
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import signing_pb2 as pb

MADE = KeyVersionRow("shop", "orders", 1, KEY_VERSION.initial, (1,), "label", b"8 bytes!", 1000)
PREPARED = AuthorityRow(1, AUTHORITY.initial, b"DER", "label", b"8 bytes!", 1000, 9000)


def test_an_activation_takes_the_next_epoch_and_the_end_of_a_suspension_does_not():
    active = key_versions.moved(MADE, KeyEvent.ACTIVATE, 2000, next_activation=3)
    assert (active.state, active.activated_ms, active.activation_epoch) == (
        pb.KEY_STATE_ACTIVE,
        2000,
        3,
    )
    suspended = key_versions.moved(active, KeyEvent.SUSPEND, 3000, next_activation=4)
    resumed = key_versions.moved(suspended, KeyEvent.RESUME, 4000, next_activation=4)
    assert resumed == replace(active, since_ms=4000)


def test_to_publish_reserves_the_epoch_that_the_activation_uses():
    published = key_versions.moved(MADE, KeyEvent.PUBLISH, 2000, next_activation=3)
    assert published == replace(MADE, published_ms=2000, activation_epoch=3)
    active = key_versions.moved(published, KeyEvent.ACTIVATE, 9000, next_activation=8)
    assert (active.activation_epoch, active.published_ms, active.activated_ms) == (3, 2000, 9000)
    with pytest.raises(FailureError, match="published already"):
        key_versions.moved(published, KeyEvent.PUBLISH, 3000, next_activation=4)
    with pytest.raises(FailureError):
        key_versions.moved(active, KeyEvent.PUBLISH, 9000, next_activation=8)


def test_an_authority_keeps_when_it_was_activated():
    active = authorities.moved(PREPARED, AuthorityEvent.ACTIVATE, 2000)
    retired = authorities.moved(active, AuthorityEvent.RETIRE, 3000)
    assert (retired.state, retired.activated_ms, retired.retired_ms) == (
        AuthorityState.RETIRED,
        2000,
        3000,
    )
    with pytest.raises(FailureError):
        authorities.moved(retired, AuthorityEvent.ACTIVATE, 4000)


@pytest.mark.parametrize(
    ("expired", "revoked", "state"),
    [
        (False, False, HandleState.GOOD),
        (True, False, HandleState.EXPIRED),
        (False, True, HandleState.REVOKED),
        (True, True, HandleState.REVOKED),
    ],
)
def test_a_handle_that_is_revoked_is_told_so_even_when_it_has_expired(expired, revoked, state):
    assert handle_state(expired=expired, revoked=revoked) is state
