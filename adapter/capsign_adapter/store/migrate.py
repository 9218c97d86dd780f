"""Brings a database to the schema of this release, and refuses one that a newer release wrote."""

from __future__ import annotations

from capsign_evidence.merkle import Frontier

from capsign_adapter.store import schema
from capsign_adapter.store.faults import (
    MAKE_ONE,
    StoreOlderError,
    StoreTooNewError,
    StoreTooOldError,
)
from capsign_adapter.store.migration import DIALECTS
from capsign_adapter.store.transaction import FIRST_HEAD, Reader, Transaction


def check_version(tx: Reader) -> int:
    """Returns the number of the last migration applied. Raises StoreTooNewError and
    StoreTooOldError.
    """
    row = tx.one("SELECT MAX(number) FROM schema_migrations")
    number = int(row[0] or 0) if row else 0
    if number > schema.LATEST:
        raise StoreTooNewError(
            f"The database has schema {number} and this release knows up to {schema.LATEST}. "
            "Run the newer release; going back needs a backup from before the upgrade."
        )
    if number < schema.STORED_RESULTS and tx.one("SELECT 1 FROM intents WHERE state <> 3 LIMIT 1"):
        raise StoreTooOldError(
            f"The database has schema {number}, and answers in its ledger that this release cannot "
            "read; nothing was changed. Run the release that wrote it, or keep it for its evidence "
            f"and begin a new one: {MAKE_ONE}."
        )
    return number


def demand_current(applied: int) -> None:
    """Raises StoreOlderError if a migration is missing."""
    if applied < schema.LATEST:
        raise StoreOlderError(
            f"The database has schema {applied}; a start brings it to {schema.LATEST}."
        )


def create(tx: Transaction, dialect: str, now_ms: int, *, through: int = schema.LATEST) -> None:
    """Create all tables of a new store and its control row: epoch 1, an empty tree. `through`: up
    to the migration with this number, as an earlier release did.
    """
    tx.run(schema.MIGRATIONS_TABLE.format_map(dict(DIALECTS[dialect])))
    upgrade(tx, dialect, 0, now_ms, through=through)
    tx.run(FIRST_HEAD, Frontier().encode())


def upgrade(
    tx: Transaction, dialect: str, applied: int, now_ms: int, *, through: int = schema.LATEST
) -> None:
    """Apply the migrations after number `applied`, in order, in the caller's transaction."""
    for migration in schema.MIGRATIONS:
        if applied < migration.number <= through:
            for statement in migration.render(dialect):
                tx.run(statement)
            tx.run(
                "INSERT INTO schema_migrations (number, name, applied_ms) VALUES (?, ?, ?)",
                migration.number,
                migration.name,
                now_ms,
            )
