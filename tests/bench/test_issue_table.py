"""The table of what is wanted, from rounds of two trees."""

from __future__ import annotations

from bench.cells import CELLS
from bench.issue_table import CELLS_OF_TABLE, markdown

ROUND = {
    "ratio": 0.25,
    "p50_e": 20.0,
    "p50_us": 600.0,
    "cpu_us": {"client": 1.0, "agent": 30.0, "adapter": 60.0},
    "rss_mib": {"agent": 45.0},
    "e_cpu_us": 30.0,
}


def test_every_row_is_a_cell_of_the_benchmark() -> None:
    assert set(CELLS_OF_TABLE) <= set(CELLS)


def test_medians_and_ranges_stand_in_the_columns_before_and_after() -> None:
    rounds = [(ROUND, {**ROUND, "ratio": ratio}) for ratio in (0.3, 0.5, 0.4)]
    line = next(line for line in markdown({"tasks-64": rounds}).splitlines() if "tasks-64" in line)
    assert "| 0.250 (0.250 to 0.250) | 0.400 (0.300 to 0.500) |" in line


def test_cpu_is_told_in_signatures_worth() -> None:
    table = markdown({"go-one-call": [(ROUND, ROUND)]}).splitlines()
    assert "| 3.0 E | 3.0 E |" in next(line for line in table if line.startswith("| CPU"))


def test_a_cell_that_a_tree_does_not_have_is_a_dash() -> None:
    line = next(
        line for line in markdown({"agents-64": [({}, ROUND)]}).splitlines() if "agents-64" in line
    )
    assert "| - | 0.250 |" in line


def test_an_engine_has_a_column_of_its_own() -> None:
    rounds = [(ROUND, ROUND, {**ROUND, "ratio": 0.75})]
    head, *rows = markdown({"tasks-64": rounds}, "native").splitlines()
    assert "| before | after | after, native | wanted |" in head
    assert "| 0.250 | 0.250 | 0.750 |" in next(row for row in rows if "tasks-64" in row)


def test_the_peer_has_a_column_where_it_was_measured_too() -> None:
    peer = {"go-one-call": [{**ROUND, "p50_e": 30.0}, {**ROUND, "p50_e": 28.0}]}
    head, _, first, *rows = markdown({"go-one-call": [(ROUND, ROUND)]}, peer=peer).splitlines()
    assert "| peer | peer, this run | before | after | wanted |" in head
    assert "| 27 E | 29.0 E (28.0 to 30.0) | 20.0 E | 20.0 E |" in first
    assert all("| - | - | - |" in row for row in rows if "`tasks-64`" in row)


def test_below_the_table_stands_what_one_raw_signature_took() -> None:
    rounds = [({**ROUND, "e_us": 41.0}, {**ROUND, "e_us": 55.0})]
    peer = {"tasks-64": [{**ROUND, "e_us": 43.0}]}
    *_, last = markdown({"tasks-64": rounds}, peer=peer).splitlines()
    assert last == "1 E was 41.0 to 55.0 µs, 43.0 in the middle."


def test_calls_that_all_failed_are_no_figure() -> None:
    failed = {**ROUND, "sps": 0.0, "errors": 361, "ratio": 0.0}
    table = markdown({"go-one-call": [(failed, ROUND)]}).splitlines()
    rows = [line for line in table if "`go-one-call`" in line]
    assert rows
    assert all("| all calls failed |" in row for row in rows)
