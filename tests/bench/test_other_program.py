"""What another program prints, as cells beside ours."""

from __future__ import annotations

import shlex
import sys

import pytest

from bench.other_program import OtherProgram


def printing(text: str) -> OtherProgram:
    return OtherProgram(shlex.join([sys.executable, "-c", f"print({text!r})"]))


def test_what_is_known_of_a_line_is_taken_and_the_rest_is_there_for_who_asks() -> None:
    other = printing('{"cell": "tasks-64", "sps": 2.0, "e_cpu_us": 30.0}\n')
    (result,) = other.round()
    assert (result.cell, result.sps) == ("tasks-64", 2.0)
    assert other.told() == [{"cell": "tasks-64", "sps": 2.0, "e_cpu_us": 30.0}]


@pytest.mark.parametrize("said", ["no JSON", "[]", '{"sps": 2.0}', "3"])
def test_a_program_that_prints_something_else_ends_the_benchmark(said: str) -> None:
    with pytest.raises(SystemExit, match="printed no cells"):
        printing(said).round()
