from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.agent_home import Home, home
from support.agent_pki import TestCa
from support.fake_adapter import FakeAdapter


@pytest.fixture(scope="session")
def ca() -> TestCa:
    return TestCa()


@pytest.fixture
def adapter(ca: TestCa) -> Iterator[FakeAdapter]:
    fake = FakeAdapter(ca).start()
    yield fake
    fake.stop()


@pytest.fixture
def place(ca: TestCa, adapter: FakeAdapter) -> Iterator[Home]:
    with home(ca, adapter.port) as one:
        yield one
