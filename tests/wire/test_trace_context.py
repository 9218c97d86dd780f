"""A traceparent is read as W3C trace context, level 2, says; what is none is no trace and no
error.
"""

from __future__ import annotations

import pytest
from capsign_wire import trace_context
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.trace_context import (
    MAX_LENGTH,
    MAX_LINKS,
    gathered,
    of_headers,
    of_message,
    read,
    sampled,
)
from hypothesis import given, settings
from hypothesis import strategies as st

TRACE, SPAN = "4b" * 16, "00f067aa0ba902b7"
IDS = f"{TRACE}-{SPAN}"


def header(number: int, flags: str = "01") -> str:
    return f"00-{number:032x}-{SPAN}-{flags}"


@pytest.mark.parametrize(
    ("given_header", "expected"),
    [
        (f"00-{IDS}-00", f"00-{IDS}-00"),
        (f"00-{IDS}-01", f"00-{IDS}-01"),
        # Level 2: the trace id was made at random. SDKs have set this bit since 2026; with the
        # sampled bit it is `03`.
        (f"00-{IDS}-02", f"00-{IDS}-02"),
        (f"00-{IDS}-03", f"00-{IDS}-03"),
        # Flags without a meaning yet are taken, and not handed on.
        (f"00-{IDS}-09", f"00-{IDS}-01"),
        (f"00-{IDS}-ff", f"00-{IDS}-03"),
        # A later version is read as far as version 00 goes, whatever comes after a dash.
        (f"01-{IDS}-01", f"00-{IDS}-01"),
        (f"cc-{IDS}-01-what-the-future-will-be-like", f"00-{IDS}-01"),
        (f"cc-{IDS}-01-", f"00-{IDS}-01"),
    ],
)
def test_what_is_a_traceparent(given_header, expected):
    assert read(given_header) == expected
    assert read(expected) == expected


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "junk",
        f"ff-{IDS}-01",
        f"00-{IDS}-01-more",
        f"00-{IDS}-01-",
        f"cc-{IDS}-01.more",
        f"cc-{IDS}-01more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{IDS}-0A",
        f"0-{IDS}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{IDS}-01\n",
        f" 00-{IDS}-01",
        f"00-{TRACE}-{SPAN}",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        "00-" + "\u0664" * 32 + f"-{SPAN}-01",
        f"cc-{IDS}-01-" + "x" * MAX_LENGTH,
    ],
)
def test_what_is_none(junk):
    assert read(junk) == ""


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_read_without_an_error(text):
    found = read(text)
    assert found == "" or (len(found) == 55 and read(found) == found)


@settings(deadline=None)
@given(st.integers(0, 255), st.integers(0, 254))
def test_the_sampled_bit_alone_decides(flags, version):
    found = read(f"{version:02x}-{IDS}-{flags:02x}")
    assert sampled(found) is bool(flags & 1)


def test_two_headers_that_differ_name_no_trace():
    assert of_headers([header(1)]) == header(1)
    assert of_headers([header(1), header(1)]) == header(1)
    assert of_headers([header(1), header(2)]) == ""
    assert of_headers([]) == ""


def test_a_recorded_trace_goes_first_and_the_others_are_linked():
    """The first call's trace was handed on: that nobody recorded it hid the traces of all calls
    beside it.
    """
    assert gathered([header(1, "00"), header(2), header(3, "02"), header(4, "03"), header(2)]) == (
        header(2),
        [header(4, "03")],
    )
    assert gathered([header(1, "00"), header(2, "00")]) == (header(1, "00"), [])
    assert gathered(["junk", ""]) == ("", [])
    first, links = gathered(header(number) for number in range(1, 500))
    assert (first, links) == (header(1), [header(number) for number in range(2, MAX_LINKS + 2)])


def test_a_message_names_what_is_a_trace():
    def named(traceparent, linked=()):
        return of_message(
            agent_pb2.SignStreamRequest(traceparent=traceparent, linked_traceparents=linked)
        )

    assert named("") == ("", [])
    assert named("junk", [header(1)]) == (header(1), [])
    assert named(header(1), ["junk", header(2)]) == (header(1), [header(2)])
    assert named(header(1), [header(number) for number in range(2, 500)])[1] == [
        header(number) for number in range(2, MAX_LINKS + 2)
    ]


def test_the_bounds_are_those_of_the_protos():
    from capsign_wire.adapter.v1 import signing_pb2
    from capsign_wire.types.v1 import bounds_pb2

    for kind in (agent_pb2.SignStreamRequest, signing_pb2.SignRequest):
        bound = (
            kind.DESCRIPTOR.fields_by_name["linked_traceparents"]
            .GetOptions()
            .Extensions[bounds_pb2.bound]
        )
        assert bound.max_items == trace_context.MAX_LINKS
        assert bound.max_len == MAX_LENGTH
        bound = (
            kind.DESCRIPTOR.fields_by_name["traceparent"].GetOptions().Extensions[bounds_pb2.bound]
        )
        assert (bound.max_len, bound.format) == (MAX_LENGTH, bounds_pb2.FORMAT_UNSPECIFIED)
