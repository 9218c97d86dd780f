"""The steps of the signing path: each number stands where the list at the top of `sign` says."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest
from capsign_agent import sign

LISTED = re.findall(r"^ ?(\d+) .*?`([a-z_.]+)`", sign.__doc__ or "", re.MULTILINE)


def test_eleven_steps_are_listed_in_their_order() -> None:
    assert [int(number) for number, _ in LISTED] == list(range(1, 12))


@pytest.mark.parametrize(("number", "module"), LISTED)
def test_the_number_stands_where_the_step_happens(number: str, module: str) -> None:
    source = inspect.getsource(importlib.import_module(f"capsign_agent.{module}"))
    assert re.search(rf"  # {number}$", source, re.MULTILINE)
