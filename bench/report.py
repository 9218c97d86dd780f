"""Results as a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from bench.cells import CELLS, Result

PROCESSES = ("client", "agent", "adapter")


def print_table(results: Sequence[Result]) -> None:
    """One row a cell. E is the time of one raw Ed25519 signature in the same run."""
    table = Table(
        title="capsign, as ratios to raw Ed25519 in the same run",
        caption="E: one raw Ed25519 signature on one thread",
    )
    for heading in ("cell", "what it is"):
        table.add_column(heading)
    for heading in (
        "signatures/s",
        "of raw",
        "p50",
        "p99",
        "CPU client/agent/adapter",
        "leaves a commit",
        "agent RSS",
        "errors",
        "1 E, µs",
    ):
        table.add_column(heading, justify="right")
    for result in results:
        cpu = "/".join(f"{result.cpu_us[name]:.0f}" for name in PROCESSES) if result.cpu_us else ""
        table.add_row(
            result.cell,
            CELLS[result.cell].story,
            f"{result.sps:,.0f}" if result.sps else "",
            f"{result.ratio:.2f}" if result.sps else "",
            f"{result.p50_e:.1f} E ({result.p50_us:,.0f} µs)",
            f"{result.p99_e:.1f} E",
            f"{cpu} µs" if cpu else "",
            f"{result.batch:.1f}" if result.batch else "",
            f"{result.rss_mib['agent']:.0f} MiB" if result.rss_mib else "",
            str(result.errors) if result.errors else "",
            f"{result.e_us:.1f}",
        )
    Console(width=190).print(table)


def print_rounds(ours: Sequence[Result], theirs: Sequence[Result]) -> None:
    """One row a cell and program: the median of the rounds, and their range."""
    table = Table(
        title="medians of the rounds, and their ranges, as ratios to raw Ed25519",
        caption="E: one raw Ed25519 signature on one thread",
    )
    for heading in ("cell", "program"):
        table.add_column(heading)
    for heading in (
        "of raw",
        "p50, E",
        "CPU, E: client",
        "agent",
        "adapter",
        "leaves a commit",
        "errors",
        "1 E, µs",
    ):
        table.add_column(heading, justify="right")
    for cell in dict.fromkeys(result.cell for result in (*ours, *theirs)):
        for program, all_of_it in (("capsign", ours), ("other", theirs)):
            seen = [result for result in all_of_it if result.cell == cell]
            if seen:
                table.add_row(
                    cell,
                    program,
                    _spread(seen, lambda one: one.ratio),
                    _spread(seen, lambda one: one.p50_e),
                    *(_spread(seen, _cpu_e(process)) for process in PROCESSES),
                    _spread(seen, lambda one: one.batch),
                    str(sum(one.errors for one in seen) or ""),
                    _spread(seen, lambda one: one.e_us),
                )
    Console(width=190).print(table)


def _cpu_e(process: str) -> Callable[[Result], float]:
    """CPU a signature of a process, in the CPU time of a raw one."""

    def of(result: Result) -> float:
        unit_us = result.e_cpu_us or result.e_us
        return result.cpu_us.get(process, 0.0) / unit_us if unit_us else 0.0

    return of


def _spread(seen: Sequence[Result], of: Callable[[Result], float]) -> str:
    values = [of(one) for one in seen]
    if not any(values):
        return ""
    middle = statistics.median(values)
    digits = 3 if middle < 1 else 1
    spread = f" [{min(values):.{digits}f} to {max(values):.{digits}f}]" if len(values) > 1 else ""
    return f"{middle:.{digits}f}{spread}"
