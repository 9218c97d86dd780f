"""Which intent ids are taken, at a glance and with a sentence: both must say the same of every
id.
"""

from __future__ import annotations

from capsign_adapter.sign.intent_time import FUTURE_MS, intent_in_time, latest_intent
from capsign_wire.failures import FailureError
from capsign_wire.intents import is_intent_id
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000_000
MILLIS = st.integers(0, (1 << 48) - 1) | st.integers(NOW + FUTURE_MS - 2, NOW + FUTURE_MS + 2)


def taken(intent_id: bytes) -> bool:
    try:
        intent_in_time(intent_id, NOW)
    except FailureError:
        return False
    return True


def taken_at_a_glance(intent_id: bytes) -> bool:
    return is_intent_id(intent_id) and intent_id <= latest_intent(NOW)


@given(MILLIS, st.binary(min_size=10, max_size=10))
def test_any_sixteen_bytes(millis: int, rest: bytes) -> None:
    intent_id = millis.to_bytes(6, "big") + rest
    assert taken_at_a_glance(intent_id) == taken(intent_id)


@given(MILLIS, st.binary(min_size=10, max_size=10))
def test_any_uuid_of_version_7(millis: int, rest: bytes) -> None:
    made = bytearray(millis.to_bytes(6, "big") + rest)
    made[6], made[8] = made[6] & 0x0F | 0x70, made[8] & 0x3F | 0x80
    assert taken_at_a_glance(bytes(made)) == taken(bytes(made)) == (millis <= NOW + FUTURE_MS)
