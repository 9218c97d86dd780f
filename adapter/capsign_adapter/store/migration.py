"""One migration of the tables: templates, and the words of either engine for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

DIALECTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "sqlite": MappingProxyType(
            {
                "int": "INTEGER",
                "blob": "BLOB",
                "auto": "INTEGER PRIMARY KEY",
                "clustered": " WITHOUT ROWID",
            }
        ),
        "postgresql": MappingProxyType(
            {
                "int": "BIGINT",
                "blob": "BYTEA",
                "auto": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
                "clustered": "",
            }
        ),
    }
)
"""Words that differ between the engines."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step. `statements` are templates over the words of DIALECTS; `tuning` is how one engine
    is to store what they made.
    """

    number: int
    name: str
    statements: tuple[str, ...]
    tuning: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def render(self, dialect: str) -> list[str]:
        """The statements in the words of an engine."""
        words = DIALECTS[dialect]
        return [statement.format_map(dict(words)) for statement in self.statements] + list(
            self.tuning.get(dialect, ())
        )
