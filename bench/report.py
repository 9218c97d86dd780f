"""Results as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.cells import CELLS, Result


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
        "agent RSS",
        "errors",
    ):
        table.add_column(heading, justify="right")
    for result in results:
        cpu = (
            "/".join(f"{result.cpu_us[name]:.0f}" for name in ("client", "agent", "adapter"))
            if result.cpu_us
            else ""
        )
        table.add_row(
            result.cell,
            CELLS[result.cell].story,
            f"{result.sps:,.0f}" if result.sps else "",
            f"{result.ratio:.2f}" if result.sps else "",
            f"{result.p50_e:.1f} E ({result.p50_us:,.0f} µs)",
            f"{result.p99_e:.1f} E",
            f"{cpu} µs" if cpu else "",
            f"{result.rss_mib['agent']:.0f} MiB" if result.rss_mib else "",
            str(result.errors) if result.errors else "",
        )
    Console(width=190).print(table)
