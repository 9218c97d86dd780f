"""A store on a PostgreSQL server, or a restored copy of one, as an archive. Its transactions are
read-only, so a role that may only read is enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsign_evidence.archive.interface import ArchiveError
from capsign_evidence.archive.relational import RelationalArchive, Row

if TYPE_CHECKING:
    import psycopg

CONNECT_S = 10
"""Longest wait for the server, seconds."""

_OPTIONS = "-c default_transaction_read_only=on -c statement_timeout=60000 -c timezone=UTC"


class PostgresArchive(RelationalArchive):
    """The store at this URL. A password comes from `password_file`, which holds nothing else, from
    the URL, from PGPASSWORD or from PGPASSFILE. Raises ArchiveError, OSError for that file, and
    ModuleNotFoundError without psycopg.
    """

    def __init__(self, url: str, password_file: Path | None = None) -> None:
        import psycopg

        password = password_file.read_text().strip() if password_file is not None else None

        self._connection: psycopg.Connection[Row]
        try:
            self._connection = psycopg.connect(
                url,
                password=password,
                autocommit=True,
                connect_timeout=CONNECT_S,
                options=_OPTIONS,
                application_name="capsign audit",
            )
        except psycopg.Error as error:
            raise _unreadable(error) from error
        names = self._rows(
            "SELECT tablename::text FROM pg_tables WHERE schemaname = ANY(current_schemas(false))"
        )
        self._tables = frozenset(str(row[0]) for row in names)
        if not {"log_segments", "audit_batches"} <= self._tables:
            self.close()
            raise ArchiveError(
                "The database at this URL holds no store.", "Name the store's database."
            )

    def close(self) -> None:
        self._connection.close()

    def _rows(self, sql: str, *parameters: Any) -> list[Row]:
        import psycopg

        try:
            with self._connection.cursor(binary=True) as cursor:
                return cursor.execute(sql.replace("?", "%s").encode(), parameters).fetchall()
        except psycopg.Error as error:
            raise _unreadable(error) from error


def _unreadable(error: psycopg.Error) -> ArchiveError:
    # Not the driver's text: it may quote the URL, and the URL may hold a password.
    state = error.sqlstate or "no connection"
    return ArchiveError(
        f"The store's server cannot be read ({type(error).__name__}, {state}).",
        "See that it runs, and that this role may read the store's tables.",
    )
