"""Fingerprints of intents: what they bind, what they leave out, and that they depend on the
pepper.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest
from capsign_adapter.keys import provision
from capsign_adapter.keys.commitment import CommitmentKey, CommitmentKeys
from capsign_wire.failures import FailureError
from hypothesis import assume, given
from hypothesis import strategies as st
from support.fake_token import FakeToken

KEY = CommitmentKey(b"c" * 32)
BASE = ("billing-jwt", "ES256", "jwt", "issuer", "1", b"", b"digest")
NAMES = st.text("ab", max_size=3) | st.text(max_size=40)
REQUESTS = st.tuples(
    NAMES,
    NAMES,
    NAMES,
    NAMES,
    NAMES,
    st.just(b"") | st.binary(min_size=32, max_size=32),
    st.binary(max_size=40),
)


class Clock:
    now_ms = 0

    def __call__(self):
        return self.now_ms


def test_the_layout_is_the_documented_one():
    def field(value):
        return struct.pack(">H", len(value)) + value

    parts = [
        b"capsign1 fingerprint",
        b"billing-jwt",
        b"ES256",
        b"jwt",
        b"issuer",
        b"1",
        b"",
        hashlib.sha256(b"digest").digest(),
    ]
    expected = hmac.new(b"c" * 32, b"".join(field(part) for part in parts), "sha256").digest()
    assert KEY.fingerprint(*BASE) == expected
    group = KEY.group(*BASE[:-1])
    assert group.of(BASE[-1]) == expected
    assert group.of_each([b"other", BASE[-1]]) == [group.of(b"other"), expected]


@given(REQUESTS, REQUESTS)
def test_different_requests_have_different_fingerprints(one, other):
    assume(one != other)
    assert KEY.fingerprint(*one) != KEY.fingerprint(*other)


@pytest.mark.parametrize("index", range(len(BASE)))
def test_every_field_counts(index):
    changed = list(BASE)
    changed[index] = bytes(32) if isinstance(changed[index], bytes) else changed[index] + "x"
    assert KEY.fingerprint(*changed) != KEY.fingerprint(*BASE)


def test_a_letter_moved_over_a_border_counts():
    assert KEY.fingerprint("ab", "c", *BASE[2:]) != KEY.fingerprint("a", "bc", *BASE[2:])


def test_the_key_comes_from_the_tenants_pepper_and_is_kept_for_a_bounded_time():
    token, clock = FakeToken(), Clock()
    for tenant in ("acme", "globex"):
        provision.make_pepper(token, tenant)
    keys = CommitmentKeys(token, clock, max_age_ms=100)
    token.calls.clear()
    first = keys.for_tenant("acme")
    assert first.key == token.hmac("capsign/acme/pepper", b"capsign1 commitment")
    assert keys.for_tenant("globex").fingerprint(*BASE) != first.fingerprint(*BASE)
    token.calls.clear()
    assert keys.for_tenant("acme") is first
    assert token.calls["hmac"] == 0
    clock.now_ms = 100
    assert keys.sweep() == 2
    assert keys.for_tenant("acme").key == first.key
    assert token.calls["hmac"] == 1


def test_when_the_pepper_is_destroyed_no_fingerprint_can_be_made():
    token = FakeToken()
    provision.make_pepper(token, "acme")
    keys = CommitmentKeys(token, Clock())
    keys.for_tenant("acme")
    token.destroy("capsign/acme/pepper")
    keys.clear()
    with pytest.raises(FailureError, match="TOKEN_UNAVAILABLE"):
        keys.for_tenant("acme")
    assert token.labels() == []


def test_nothing_secret_shows_in_a_repr():
    group = KEY.group(*BASE[:-1])
    for shown in (repr(KEY), repr(group)):
        assert "ccc" not in shown
        assert "key=" not in shown
