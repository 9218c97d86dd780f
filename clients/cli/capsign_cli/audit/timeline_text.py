"""A timeline in a terminal: a lane for each of the busiest, a column for each piece of time, and
below them what stands out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

from capsign_cli.audit.timeline_data import GROUPS, MARKS, Row, Timeline, clock, short_names, who
from capsign_cli.output import printable

MOST_LANES = 12
NARROWEST = 20
"""Columns of time that there are at least."""
MAX_LISTED = 40
"""Most rows in the list of what stands out; the newest ones are kept."""

FINE, PLAIN = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
"""What a column is drawn with, from nothing to most: where the output can say it, and where not."""
SIGNS = {"incident": "!", "revocation": "x", "rollout": ">", "act": "o"}
STEPS = (1, 5, 15, 60, 300, 900, 3600, 10_800, 21_600, 43_200, 86_400, 604_800)
"""Lengths between times on the axis, seconds."""


@dataclass(frozen=True, slots=True)
class Lane:
    """How many rows each column of time has; `refused`: how many of them were refused."""

    name: str
    counts: Sequence[int]
    refused: Sequence[int]


@dataclass(frozen=True, slots=True)
class Lanes:
    """The columns of time, and what is in them."""

    first_ms: int
    column_ms: float
    lanes: Sequence[Lane]
    marks: dict[str, list[int]]

    def values(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "from_ms": self.first_ms,
            "column_ms": round(self.column_ms, 3),
            "lanes": [
                {"name": one.name, "counts": list(one.counts), "refused": list(one.refused)}
                for one in self.lanes
            ],
            "marks": self.marks,
        }


def lanes_of(rows: Sequence[Row], by: str, columns: int) -> Lanes:
    """Rows counted by lane and column; `rows` are in the order of time. The busiest values of the
    field `by` have a lane each, all others share one.
    """
    first = rows[0].time_ms if rows else 0
    last = rows[-1].time_ms if rows else 1
    wide = max(last - first + 1, 1) / columns
    plain = [row for row in rows if row.group not in MARKS]
    busiest = Counter(row.texts.get(by, "") for row in plain).most_common()
    alone = busiest if len(busiest) <= MOST_LANES + 1 else busiest[:MOST_LANES]
    places = {name: place for place, (name, _) in enumerate(alone)}
    names = [name or f"no {by}" for name, _ in alone]
    if len(alone) < len(busiest):
        names.append(f"{len(busiest) - len(alone)} others")
    counts = [[0] * columns for _ in names]
    refused = [[0] * columns for _ in names]
    marks = {group: [0] * columns for group in GROUPS if group in MARKS}
    for row in rows:
        column = min(int((row.time_ms - first) / wide), columns - 1)
        if row.group in MARKS:
            marks[row.group][column] += 1
            continue
        place = places.get(row.texts.get(by, ""), len(names) - 1)
        counts[place][column] += 1
        refused[place][column] += row.group == "refused"
    lanes = [Lane(*one) for one in zip(names, counts, refused, strict=True)]
    return Lanes(first, wide, lanes, marks)


def lines(
    timeline: Timeline, by: str, width: int, ramp: str, paint: Callable[[str, str], str]
) -> Iterator[str]:
    """The lines to print, `width` columns wide. `paint` gives a text a colour, by group. What a log
    says is without control characters.
    """
    timeline = _printable(timeline)
    if not timeline.rows:
        yield "Nothing matches."
        return
    label = min(max(width // 3, 12), 34)
    columns = max(width - label - 10, NARROWEST)
    lanes = lanes_of(timeline.rows, by, columns)
    names = short_names(lane.name for lane in lanes.lanes)
    yield f"{timeline.origin}  {len(timeline.rows):,} rows  {timeline.span()}"
    yield ""
    yield f"{'':{label}} {_axis(lanes, columns)}"
    for group, counts in lanes.marks.items():
        if any(counts):
            drawn = "".join(SIGNS[group] if one else " " for one in counts)
            total = f"{sum(counts):>8,}"
            yield f"{GROUPS[group]:<{label}} {paint(drawn, group)} {total}"
    for lane in lanes.lanes:
        name, total = _cut(names[lane.name], label), f"{sum(lane.counts):>8,}"
        yield f"{name:<{label}} {_bars(lane, ramp, paint)} {total}"
    yield from _listed(timeline, paint)


def _printable(timeline: Timeline) -> Timeline:
    return replace(
        timeline,
        origin=printable(timeline.origin),
        rows=[
            row
            if all(map(str.isprintable, row.texts.values()))
            else replace(row, texts={name: printable(text) for name, text in row.texts.items()})
            for row in timeline.rows
        ],
    )


def _bars(lane: Lane, ramp: str, paint: Callable[[str, str], str]) -> str:
    """A column is as high as the root of its count; one with refusals has their colour."""
    most = max(*lane.counts, 1)
    drawn = []
    for count, refused in zip(lane.counts, lane.refused, strict=True):
        height = max(round(sqrt(count / most) * (len(ramp) - 1)), bool(count))
        drawn.append(paint(ramp[height], "refused" if refused else "signed"))
    return "".join(drawn)


def _axis(lanes: Lanes, columns: int) -> str:
    """Times above their columns: hours and minutes, or days where the columns are long."""
    wanted = lanes.column_ms * 12 / 1000
    weeks = STEPS[-1] * max(int(-(-wanted // STEPS[-1])), 1)
    step = next((one for one in STEPS if one >= wanted), weeks) * 1000
    axis = [" "] * (columns + 12)
    at = -(-lanes.first_ms // step) * step
    while (column := int((at - lanes.first_ms) / lanes.column_ms)) < columns:
        text = clock(at)
        shown = text[5:10] if step >= 86_400_000 else text[11 : 16 if step >= 60_000 else 19]
        axis[column : column + len(shown)] = shown
        at += step
    return "".join(axis)[:columns]


def _listed(timeline: Timeline, paint: Callable[[str, str], str]) -> Iterator[str]:
    marked = [row for row in timeline.rows if row.group in MARKS]
    if not marked:
        return
    yield ""
    if len(marked) > MAX_LISTED:
        yield f"What stands out (the newest {MAX_LISTED} of {len(marked):,}; --html has all)"
    else:
        yield "What stands out"
    for row in marked[-MAX_LISTED:]:
        what = paint(f"{SIGNS[row.group]} {row.what:<24}", row.group)
        told = "  ".join(filter(None, (row.about(), who(row) and f"by {who(row)}")))
        yield f"  {clock(row.time_ms)}  {what} {told}  leaf {row.leaf}"


def _cut(name: str, room: int) -> str:
    """The end of a name, which tells it apart."""
    return name if len(name) <= room else "~" + name[1 - room :]
