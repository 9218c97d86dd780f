"""The reference is what the code says: a key cannot be added without showing up in it."""

from __future__ import annotations

import runpy
from pathlib import Path

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations"


def test_the_page_is_what_the_code_gives():
    made = runpy.run_path(str(OPERATIONS / "make_configuration.py"))["document"]()
    assert (OPERATIONS / "configuration.md").read_text() == made, "run `make docs`"
