"""The compiled peer's program: its cells, and where the peer does not start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.cells import CELLS
from bench.issue_table import CELLS_OF_TABLE
from bench.peer.__main__ import LOADS
from bench.peer.openbao import OpenBao


def test_its_cells_are_ours_by_name() -> None:
    assert set(LOADS) <= set(CELLS)
    assert set(CELLS_OF_TABLE) - set(LOADS) == {"threads-64", "agents-64", "startup"}


def test_a_server_that_ends_at_once_ends_the_benchmark_with_what_it_said(tmp_path: Path) -> None:
    echo = shutil.which("echo")
    assert echo is not None
    with pytest.raises(SystemExit, match=r"did not start:\nserver -config="):
        OpenBao(echo, tmp_path)
