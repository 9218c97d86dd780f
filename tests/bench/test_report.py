"""What the tables for people say."""

from __future__ import annotations

import pytest

from bench.cells import Result
from bench.report import print_rounds, print_table

CALL = Result(
    "tasks-64", sps=5000.0, p50_us=800.0, cpu_us={"client": 45.0, "agent": 30.0, "adapter": 90.0}
)


def test_a_busy_machine_makes_a_raw_signature_longer_and_no_call_cheaper(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_rounds([CALL.against(10_000.0, raw_cpu_us=30.0)], [])
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "tasks-64" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[2:4] == ["0.500", "8.0"]  # of what one thread does beside the others
    assert cells[4:7] == ["1.5", "1.0", "3.0"]  # CPU in CPU
    assert cells[-1] == "100.0"


def test_the_table_of_one_run_has_what_a_raw_signature_took(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table([CALL.against(20_000.0)])
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "tasks-64" in line]
    assert row.rstrip(" │").endswith("50.0")
