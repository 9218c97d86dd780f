"""What to do about an input that is refused, by what it is: one sentence does not fit a number, a
list and a message alike. A reason's own row (`failures.proto`) is for all that is none of these.

The sentence is the end of a failure's text on the wire, where whoever receives it knows it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from capsign_wire.types.v1 import failures_pb2 as pb


class Given(Enum):
    """What was given."""

    NUMBER = auto()
    """A version, a size, a duration, a count."""
    LIST = auto()
    """Many things in one call."""
    TEXT = auto()
    """A name, an id, a document, or bytes that are not signed."""
    MESSAGE = auto()
    """What shall be signed, or was."""
    HANDLE = auto()
    """A token that is a handle."""
    REQUEST = auto()
    """A call as a whole."""


ADVICE: Mapping[int, Mapping[Given, str]] = MappingProxyType(
    {
        pb.REASON_INPUT_TOO_LARGE: {
            Given.NUMBER: "Give a smaller number.",
            Given.LIST: "Give fewer at once, in several calls.",
            Given.TEXT: "Give a shorter one.",
            Given.MESSAGE: "Sign its digest instead, by an algorithm that takes one.",
            Given.HANDLE: "Narrow the handle less, or ask for a new one.",
            Given.REQUEST: "Split it into several calls.",
        },
        pb.REASON_INPUT_MALFORMED: {
            Given.LIST: "Give at least as many as it needs.",
            Given.REQUEST: "Send the message that this call takes, as its .proto file has it.",
        },
    }
)
"""By reason and what was given; where there is none, the reason's own row counts."""


def advice_of(reason: int, given: Given | None, otherwise: str) -> str:
    """The sentence for what was given, or the other one."""
    return ADVICE.get(reason, {}).get(given, otherwise) if given is not None else otherwise


def advice_in(reason: int, text: str, otherwise: str) -> str:
    """The sentence with which a failure's text ends, or the other one."""
    known = ADVICE.get(reason, {}).values()
    return next((each for each in known if text.endswith(each)), otherwise)
