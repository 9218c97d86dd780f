"""Opens or creates the store that a URL names. Opening never creates one: if the database is gone,
an operator must look.
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

    With `create`, one is made if there is none. With `trial`, nothing is changed. `password_file`
    holds the PostgreSQL password and nothing else; a password in the URL is refused. Raises
    ValueError for a URL that names no store, StoreMissingError if there is none, and the other
    errors of `faults`.
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
    """Returns the directory of a store on this machine's disk; None for any other."""
    path = _sqlite_path(url)
    return path.parent if path is not None else None


def checkpoint_beside(url: str) -> Path | None:
    """Returns the file beside a store on this machine's disk in which its last checkpoint is kept;
    None for any other store.
    """
    path = _sqlite_path(url)
    return path.with_name(f"{path.name}.checkpoint") if path is not None else None


def create_store(url: str, *, password_file: Path | None = None) -> None:
    """Create the store of a new deployment. Raises StoreExistsError if there is one already."""
    path = _sqlite_path(url)
    if path is not None:
        create_sqlite(path)
        return
    from capsign_adapter.store.postgres import create_postgres

    create_postgres(url, password_file)


def _sqlite_path(url: str) -> Path | None:
    """Returns the file that a sqlite URL names; None for a PostgreSQL URL."""
    if url.startswith(("postgresql://", "postgres://")):
        return None
    if not url.startswith("sqlite:"):
        raise ValueError(
            "A store's URL is sqlite:///absolute/path or postgresql://user@host/database."
        )
    return Path(sqlite_url.path_of(url))
