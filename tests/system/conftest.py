from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from support import engines
from support.dev import Dev


def pytest_collection_modifyitems(items):
    for item in items:
        if "/tests/system/" in str(item.path):
            item.add_marker(pytest.mark.system)
    engines.expect(items)


@pytest.fixture
def short_dir():
    """A directory with a short path: a Unix socket's has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="cs-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def dev(short_dir):
    deployment = Dev(short_dir / "d")
    yield deployment
    deployment.close()
