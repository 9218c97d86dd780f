"""The table of what speed is wanted, filled from rounds of two working trees: Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Told = Mapping[str, Any]
"""What a cell gave, as `Result.plain`; empty if a tree does not have the cell."""

Quantity = Callable[[Told], float]


def ratio(told: Told) -> float:
    """Signatures a second, of raw Ed25519."""
    return float(told["ratio"])


def p50_e(told: Told) -> float:
    """The median call, E."""
    return float(told["p50_e"])


def servers_e(told: Told) -> float:
    """CPU a signature of agent and adapters, E: of what one raw signature takes of it."""
    cpu = told["cpu_us"]
    return float((cpu["agent"] + cpu["adapter"]) / told["e_cpu_us"])


def agent_mib(told: Told) -> float:
    """Memory of the agent, MiB."""
    return float(told["rss_mib"]["agent"])


@dataclass(frozen=True)
class Row:
    """One line: what it is called, the cell and quantity that fill it, what a compiled peer takes
    (OpenBao 2.6.2 transit behind its proxy, without fsync), and what is wanted.
    """

    name: str
    cell: str
    of: Quantity
    unit: str
    peer: str
    wanted: str


ROWS = (
    Row("one call, Go client, p50", "go-one-call", p50_e, " E", "27 E", "≤ 27 E"),
    Row("8 callers, unary, Go, ÷ raw", "go-unary-8", ratio, "", "0.078", "≥ 0.12"),
    Row("64 callers, unary, Go, ÷ raw", "go-unary-64", ratio, "", "0.104", "≥ 0.25"),
    Row("64 callers, HS256, Go", "go-unary-64-hs256", ratio, "", "0.104", "≥ 0.30"),
    Row("batch of 100, one caller", "go-batch-100x1", ratio, "", "0.41", "≥ 0.60"),
    Row("batch of 100, eight callers", "go-batch-100x8", ratio, "", "0.81", "≥ 0.95"),
    Row("64 asyncio tasks, Python", "tasks-64", ratio, "", "0.073", "≥ 0.45"),
    Row("64 threads, Python", "threads-64", ratio, "", "-", "≥ 0.30"),
    Row("CPU, agent + adapter, one call", "go-one-call", servers_e, " E", "33 E", "≤ 25 E"),
    Row("the same at 64", "go-unary-64", servers_e, " E", "16 E", "≤ 5 E"),
    Row("64 agents at two adapters, ÷ raw", "agents-64", ratio, "", "-", "≥ 0.15"),
    Row("RSS of an agent, idle", "startup", agent_mib, " MiB", "79 MiB", "≤ 45 MiB"),
    Row("the same, loaded", "go-unary-64", agent_mib, " MiB", "89 MiB", "≤ 60 MiB"),
)

CELLS_OF_TABLE = tuple(dict.fromkeys(row.cell for row in ROWS))


def markdown(
    seen: Mapping[str, Sequence[tuple[Told, ...]]],
    *engines: str,
    peer: Mapping[str, Sequence[Told]] | None = None,
) -> str:
    """The table. `seen` has the rounds of each cell: what the other tree gave, this one, and this
    one with each of `engines` on the applications' sockets; `peer` those of the peer, where it was
    measured in the same run. Below it stands what 1 E was.
    """
    columns = ("before", "after", *(f"after, {engine}" for engine in engines))
    here = () if peer is None else ("peer, this run",)
    heads = ("cell", "name", "peer", *here, *columns, "wanted")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in ROWS:
        rounds = seen.get(row.cell, ())
        told = [_spread(row, [one[at] for one in rounds if one[at]]) for at in range(len(columns))]
        if peer is not None:
            told.insert(0, _spread(row, peer.get(row.cell, ())))
        cells = (row.name, f"`{row.cell}`", row.peer, *told, row.wanted)
        lines.append(f"| {' | '.join(cells)} |")
    of_peer = [told for rounds in (peer or {}).values() for told in rounds]
    of_ours = [told for rounds in seen.values() for trees in rounds for told in trees]
    return "\n".join([*lines, *_unit([*of_ours, *of_peer])])


def _unit(every: Sequence[Told]) -> list[str]:
    """How long one raw signature took beside the cells, as a paragraph."""
    seen = sorted(told["e_us"] for told in every if told.get("e_us"))
    if not seen:
        return []
    middle = statistics.median(seen)
    return ["", f"1 E was {seen[0]:.1f} to {seen[-1]:.1f} µs, {middle:.1f} in the middle."]


def _spread(row: Row, rounds: Sequence[Told]) -> str:
    """The median of the rounds, and their range. Where a round signed nothing there is no figure:
    how fast calls failed says nothing.
    """
    if not rounds:
        return "-"
    if any(told.get("errors") and not told["sps"] for told in rounds):
        return "all calls failed"
    values = [row.of(told) for told in rounds]
    digits = 3 if max(values) < 1 else 1 if max(values) < 100 else 0
    text = f"{statistics.median(values):.{digits}f}{row.unit}"
    if len(values) == 1:
        return text
    return f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"
