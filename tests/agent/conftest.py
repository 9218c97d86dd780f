from __future__ import annotations

from collections.abc import Iterator

import pytest
from capsign_agent.front.engines import ENGINES
from support import engines
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


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest, place: Home) -> str:
    """The agent of `place` serves with each engine in turn; its name."""
    engines.use(request.param, place, request)
    return str(request.param)
