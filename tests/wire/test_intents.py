"""Intent ids are UUIDv7: time-ordered, unique, and anything else is refused."""

from __future__ import annotations

import os
import time
import uuid

import pytest
from capsign_wire.failures import FailureError
from capsign_wire.intents import LENGTH, are_intent_ids, is_intent_id, millis_of, new_intent_id
from capsign_wire.types.v1 import failures_pb2
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 2**48 - 1))
def test_an_id_is_a_uuid_of_version_7_and_keeps_its_time(millis):
    made = new_intent_id(millis)
    assert len(made) == LENGTH
    assert (uuid.UUID(bytes=made).version, uuid.UUID(bytes=made).variant) == (7, uuid.RFC_4122)
    assert millis_of(made) == millis


def test_the_example_of_the_rfc():
    """RFC 9562 appendix A.6: 2022-02-22 19:22:22 GMT."""
    assert millis_of(uuid.UUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F").bytes) == 1645557742000


def test_ids_of_later_times_sort_later_and_none_comes_twice():
    ids = [new_intent_id(millis) for millis in range(1000)]
    assert ids == sorted(ids)
    assert len({new_intent_id(1) for _ in range(10_000)}) == 10_000


def test_without_a_time_it_is_now():
    before = time.time_ns() // 1_000_000
    assert before <= millis_of(new_intent_id()) <= time.time_ns() // 1_000_000


@given(st.binary(max_size=20))
def test_other_bytes_are_refused(data):
    if len(data) == LENGTH and data[6] >> 4 == 7 and data[8] >> 6 == 2:
        return
    with pytest.raises(FailureError) as caught:
        millis_of(data)
    assert (caught.value.reason, caught.value.field) == (
        failures_pb2.REASON_INPUT_MALFORMED,
        "intent_id",
    )


@given(st.lists(st.binary(min_size=LENGTH, max_size=LENGTH) | st.binary(max_size=20)))
def test_many_are_ids_if_each_is_one(data):
    assert are_intent_ids(data) == all(map(is_intent_id, data))
    ids = [new_intent_id(millis) for millis in range(5)]
    assert are_intent_ids(ids)
    for at in range(len(ids)):
        assert are_intent_ids([*ids[:at], *data, *ids[at:]]) == all(map(is_intent_id, data))


@given(st.binary(min_size=LENGTH, max_size=LENGTH))
def test_any_bytes_with_version_and_variant_are_an_id(data):
    value = bytearray(data)
    value[6], value[8] = value[6] & 0x0F | 0x70, value[8] & 0x3F | 0x80
    assert are_intent_ids([bytes(value)])


def test_a_fork_and_its_parent_make_different_ids():
    """Random bits are drawn for many ids at once; a child that kept what its parent has drawn made
    the ids of its parent, and was refused for another call's intent.
    """
    new_intent_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"".join(new_intent_id(0) for _ in range(20)))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        of_child = told.read()
    ids = [of_child[at : at + LENGTH] for at in range(0, len(of_child), LENGTH)]
    assert len(ids) == 20
    assert not set(ids) & {new_intent_id(0) for _ in range(300)}
