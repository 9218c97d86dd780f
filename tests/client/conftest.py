from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from support.fake_agent import FakeAgent


@pytest.fixture
def agent():
    # Not tmp_path: with a long test name it is longer than a socket's path can be.
    folder = Path(tempfile.mkdtemp(prefix="capsign-"))
    fake = FakeAgent(folder / "agent.sock").start()
    yield fake
    fake.stop()
    shutil.rmtree(folder)
