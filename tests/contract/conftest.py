"""The stores under contract: each test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest
from capsign_adapter.store.open import create_store, open_store


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store_url(request, tmp_path) -> str:
    """URL of an empty store that exists."""
    if request.param == "sqlite":
        url = f"sqlite://{tmp_path}/state/store.db"
    else:
        url = request.getfixturevalue("postgres_server").new_database()
    create_store(url)
    return url


@pytest.fixture
def store(store_url):
    opened = open_store(store_url)
    yield opened
    opened.close()


@pytest.fixture
def second(store_url):
    """Another replica on the same store."""
    opened = open_store(store_url)
    yield opened
    opened.close()
