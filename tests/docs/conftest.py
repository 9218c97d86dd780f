"""A terminal for those who follow pages: one for each file of tests, so that workers share them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import needs
from support.page_reader import Reader
from support.pages import FIRST


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    """The reader, and the environment after the first page."""
    needs.softhsm()
    reader = Reader(tmp_path_factory.mktemp("checkout"))
    environ = reader.environ
    try:
        environ = reader.follow(FIRST, environ)
        yield reader, environ
    finally:
        down = [sys.executable, "-m", "capsign_cli", "dev", "down", "--dir", ".demo"]
        subprocess.run(
            down,
            cwd=reader.checkout,
            env=reader.environ,
            capture_output=True,
            check=False,
            timeout=60,
        )
