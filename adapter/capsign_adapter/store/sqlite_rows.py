"""How rows are inserted into a table of SQLite: the statement, and the values as the sqlite3 module
takes them without more ado.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from capsign_adapter.store.transaction import Row, Table

FEW = 4
"""Below this number of rows it is quicker to go through them one by one than by columns."""


@cache
def _blobs(table: Table) -> frozenset[int]:
    """Returns the places of the columns that are blobs."""
    return frozenset(at for at, (_, kind) in enumerate(table.columns) if kind == "blob")


@cache
def insert_statement(table: Table) -> str:
    marks = ", ".join("?" * len(table.columns))
    return f"INSERT INTO {table.name} ({table.column_list}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608 - constants


def bound(table: Table, rows: Sequence[Row]) -> Iterable[Sequence[Any]]:
    """Returns the rows with their blobs as bytearrays: for each parameter that is bytes the sqlite3
    module looks for an adapter, which takes as long as to insert it.
    """
    if len(rows) < FEW:
        blobs = _blobs(table)
        return [[bytearray(v) if at in blobs else v for at, v in enumerate(row)] for row in rows]
    columns = zip(*rows, strict=True)
    return zip(
        *(
            map(bytearray, column) if kind == "blob" else column
            for (_, kind), column in zip(table.columns, columns, strict=True)
        ),
        strict=True,
    )
