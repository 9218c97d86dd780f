"""The stores under contract: each test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.store.open import create_store, open_store
from capsign_adapter.store.postgres import PostgresStore, create_postgres
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite
from support.postgres import PostgresServer


class Earlier:
    """A store that has no later release yet."""

    def bring_up_to_date(self, now_ms: int, *, trial: bool) -> None:
        """There is nothing newer."""


class EarlierSqliteStore(Earlier, SqliteStore):
    pass


class EarlierPostgresStore(Earlier, PostgresStore):
    pass


class Place(NamedTuple):
    """Where a store is, and the file with its password."""

    url: str
    password_file: Path | None = None

    def create(self) -> None:
        create_store(self.url, password_file=self.password_file)

    def earlier(self, *, through: int) -> Store:
        """A new store as the release made it, and knew it, whose last migration had this number."""
        if self.password_file is None:
            create_sqlite(self.path, through=through)
            return EarlierSqliteStore(self.path)
        create_postgres(self.url, self.password_file, through=through)
        return EarlierPostgresStore(self.url, self.password_file)

    @property
    def path(self) -> Path:
        """The file of a SQLite store."""
        return Path(self.url.removeprefix("sqlite://"))

    def open(self) -> Store:
        return open_store(self.url, password_file=self.password_file)


@pytest.fixture(scope="session")
def postgres_server():
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def postgres_place(postgres_server) -> Place:
    """An empty PostgreSQL database."""
    return Place(postgres_server.new_database(), postgres_server.password_file_for_clients)


@pytest.fixture
def sqlite_place(tmp_path) -> Place:
    """A directory without a database yet."""
    return Place(f"sqlite://{tmp_path}/state/store.db")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def place(request) -> Place:
    """A store that exists and is empty."""
    name = {"sqlite": "sqlite_place", "postgresql": "postgres_place"}[request.param]
    found: Place = request.getfixturevalue(name)
    found.create()
    return found


@pytest.fixture
def copied(request, place, tmp_path) -> Callable[[], Place]:
    """Makes a copy of the store as it is then, as a backup does."""

    def copy() -> Place:
        if place.password_file is not None:
            server = request.getfixturevalue("postgres_server")
            return Place(server.restored(place.url), place.password_file)
        path = tmp_path / "yesterday" / "store.db"
        path.parent.mkdir(mode=0o700)
        with closing(sqlite3.connect(place.path)) as one, closing(sqlite3.connect(path)) as two:
            one.backup(two)
        path.chmod(0o600)
        return Place(f"sqlite://{path}")

    return copy


@pytest.fixture
def store(place):
    opened = place.open()
    yield opened
    opened.close()


@pytest.fixture
def second(place):
    """Another replica on the same store."""
    opened = place.open()
    yield opened
    opened.close()
