"""W3C trace context (level 2): reads a `traceparent` as the specification says, and puts several
traces into one message. Pure.

Within its bound, a header that is no traceparent is no reason to refuse a call: it counts as none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

MAX_LENGTH = 256
"""Longest header that is looked at, bytes; a version after 00 may be longer than the 55 of that
one.
"""

MAX_LINKS = 64
"""Most further traces that a message names."""

SAMPLED = 0x01
"""The caller recorded it, and so should we."""
_KNOWN_FLAGS = 0x03
"""Sampled, and since level 2 random-trace-id. Others have no meaning yet: they are not handed
on.
"""

_FIELDS = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x20-\x7e]*)?")


def read(header: str) -> str:
    """Returns the header in the form of version 00, 55 characters; empty if it is not a
    traceparent.

    A higher version is read as far as version 00 goes. Version ff, upper case, and a trace or span
    id of zeroes are none.
    """
    if not header or len(header) > MAX_LENGTH:
        return ""
    found = _FIELDS.fullmatch(header)
    if found is None:
        return ""
    version, trace_id, span_id, flags, more = found.groups()
    if (
        version == "ff"
        or (version == "00" and more is not None)
        or not int(trace_id, 16)
        or not int(span_id, 16)
    ):
        return ""
    return f"00-{trace_id}-{span_id}-{int(flags, 16) & _KNOWN_FLAGS:02x}"


def of_headers(headers: Iterable[str]) -> str:
    """As `read`, of all `traceparent` headers of a call. Two that differ name no trace."""
    found = {read(header) for header in headers}
    return found.pop() if len(found) == 1 else ""


def sampled(traceparent: str) -> bool:
    """Whether the trace is recorded. `traceparent` is what `read` gave, not empty."""
    return bool(int(traceparent[-2:], 16) & SAMPLED)


class Traced(Protocol):
    """A message with the traces of its calls."""

    traceparent: str

    @property
    def linked_traceparents(self) -> Sequence[str]: ...


def of_message(message: Traced) -> tuple[str, Sequence[str]]:
    """Returns the trace that a message continues, and those that it is linked with; invalid ones
    are left out.
    """
    return gathered([message.traceparent, *message.linked_traceparents[:MAX_LINKS]])


def gathered(headers: Iterable[str]) -> tuple[str, list[str]]:
    """Returns, from the traces of several calls, the one that their common message continues, and
    those that it is linked with. A sampled trace comes first; traces that are not sampled are not
    linked.
    """
    traces = list(dict.fromkeys(trace for trace in map(read, headers) if trace))
    recorded = [trace for trace in traces if sampled(trace)]
    first = (recorded or traces or [""])[0]
    return first, recorded[1 : MAX_LINKS + 1]
