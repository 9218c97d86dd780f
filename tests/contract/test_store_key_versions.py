"""Key versions as stores keep them, beyond what tests/contract/test_store.py says."""

from __future__ import annotations

import sqlite3

from capsign_adapter.store import schema

NOW = 1_790_000_000_000

PUBLICATION = "publication of key versions"
"""The migration that made room for publications."""

_OLD_ROW = (
    "INSERT INTO key_versions (tenant, key_name, version, state, algorithms, label, check_value,"
    " created_ms, activated_ms, activation_epoch, derived)"
    " VALUES ('shop', ?, 1, ?, '1', ?, ?, ?, ?, ?, 1)"
)


def test_versions_of_an_earlier_release_count_as_published_when_they_were_activated():
    database = sqlite3.connect(":memory:")
    for migration in schema.MIGRATIONS:
        if migration.name == PUBLICATION:
            database.execute(_OLD_ROW, ("orders", 2, "orders", b"8 bytes!", NOW, NOW + 5, 1))
            database.execute(_OLD_ROW, ("refunds", 1, "refunds", b"8 bytes!", NOW, 0, 0))
        for statement in migration.render("sqlite"):
            database.execute(statement)
    found = database.execute(
        "SELECT published_ms, since_ms, activation_epoch FROM key_versions ORDER BY id"
    )
    assert found.fetchall() == [(NOW + 5, NOW + 5, 1), (0, NOW, 0)]
