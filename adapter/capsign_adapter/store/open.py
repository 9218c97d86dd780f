"""From a URL to a store. Opening never creates: a database that is gone is a reason to stop and
ask.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from capsign_wire import sqlite_url

from capsign_adapter.store.faults import StoreExistsError, StoreMissingError
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite


def open_store(
    url: str, *, create: bool = False, trial: bool = False, password_file: Path | None = None
) -> Store:
    """The store at `sqlite:///absolute/path` or `postgresql://user@host/database`.

    With `create`, one is made if there is none. With `trial` it is looked at, and nothing of it
    changes. `password_file` holds the PostgreSQL password and nothing else; a password in the URL
    is refused. Raises ValueError for a URL that names no store, StoreMissingError if there is none
    there, and the other kinds of StoreUnavailableError in `faults`.
    """
    if create:
        try:
            return open_store(url, password_file=password_file)
        except StoreMissingError:
            # Another replica that starts at the same time may be first.
            with suppress(StoreExistsError):
                create_store(url, password_file=password_file)
    path = _sqlite_path(url)
    if path is not None:
        return SqliteStore(path, trial=trial)
    # psycopg loads libpq: not for a deployment that does not use it.
    from capsign_adapter.store.postgres import PostgresStore

    return PostgresStore(url, password_file, trial=trial)


def disk_of(url: str) -> Path | None:
    """The directory on whose disk the store lies, if it is one of this machine."""
    path = _sqlite_path(url)
    return path.parent if path is not None else None


def create_store(url: str, *, password_file: Path | None = None) -> None:
    """Make the store of a new deployment. Raises StoreExistsError if there is one already."""
    path = _sqlite_path(url)
    if path is not None:
        create_sqlite(path)
        return
    from capsign_adapter.store.postgres import create_postgres

    create_postgres(url, password_file)


def _sqlite_path(url: str) -> Path | None:
    """The file that a sqlite URL names; None for a PostgreSQL URL."""
    if url.startswith(("postgresql://", "postgres://")):
        return None
    if not url.startswith("sqlite:"):
        raise ValueError(
            "A store's URL is sqlite:///absolute/path or postgresql://user@host/database."
        )
    return Path(sqlite_url.path_of(url))
