"""From marks to the steps of a timeline: for each step the median of the quickest calls. Pure."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

AGENT, ADAPTER, BETWEEN = "agent", "adapter", "between"

QUICKEST = 10
"""One call in so many is looked at: the quickest, which other work on the machine disturbed least.
"""


@dataclass(frozen=True)
class Step:
    """From the mark before to `mark`, in one process or between two."""

    mark: str
    where: str
    what: str


STEPS = (
    Step("agent.begin", BETWEEN, "the client builds the message; gRPC, Unix socket"),
    Step("request.begin", AGENT, "identify, decide, hash; journal the intent"),
    Step("pipeline.begin", BETWEEN, "build the batch; gRPC, mutual TLS"),
    Step("commit.begin", ADAPTER, "verify the handle, decide, derive, sign"),
    Step("disk.begin", ADAPTER, "ledger and evidence: rows, leaves, tree"),
    Step("disk.end", ADAPTER, "COMMIT: the disk has it"),
    Step("pipeline.end", ADAPTER, "release, build the answer"),
    Step("answered.begin", BETWEEN, "gRPC, mutual TLS"),
    Step("agent.end", AGENT, "check the answer, journal the outcome"),
    Step("client.end", BETWEEN, "gRPC, Unix socket; the client wakes and reads"),
)
"""A call begins with the mark `client.begin`."""

Marks = Sequence[tuple[int, str]]
"""Nanoseconds of the monotonic clock, and names."""


def medians_us(marks: Marks) -> list[float]:
    """The median of each step in the quickest tenth of the calls, microseconds. `marks` are those
    of all processes, while one call was made at a time; a call that lacks a mark is left out.
    Raises ValueError if none is whole.
    """
    times: dict[str, list[int]] = {}
    for at, name in sorted(marks):
        times.setdefault(name, []).append(at)
    begins, ends = times.get("client.begin", []), times.get("client.end", [])
    whole = [
        found
        for begin, end in zip(begins, ends, strict=True)
        if (found := _of_call(times, begin, end)) is not None
    ]
    if not whole:
        missing = sorted({step.mark for step in STEPS} - times.keys())
        raise ValueError(f"no call has all marks; never seen: {', '.join(missing) or 'none'}")
    quickest = sorted(whole, key=sum)[: max(len(whole) // QUICKEST, 1)]
    return [statistics.median(step) / 1000 for step in zip(*quickest, strict=True)]


def _of_call(times: Mapping[str, Sequence[int]], begin: int, end: int) -> list[int] | None:
    """Nanoseconds of each step of one call."""
    taken, before = [], begin
    for step in STEPS:
        all_of_it = times.get(step.mark, ())
        place = bisect_left(all_of_it, before)
        if place == len(all_of_it) or all_of_it[place] > end:
            return None
        taken.append(all_of_it[place] - before)
        before = all_of_it[place]
    return taken
