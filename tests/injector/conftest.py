from __future__ import annotations

import pytest
from capsign_injector.settings import Settings
from support.injector_settings import BUNDLE, SETTINGS


@pytest.fixture(scope="session")
def settings() -> Settings:
    return SETTINGS


@pytest.fixture(scope="session")
def bundle() -> str:
    return BUNDLE
