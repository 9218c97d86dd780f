"""Parquet for analysts: files of one typed schema in a directory, made by DuckDB.

A file is named by the place of its first event, so that a part which is made again after a crash
replaces itself: a directory never has an event twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from capsign_evidence.archive.events import Event, described

from capsign_cli.audit.export_cursor import sync_directory
from capsign_cli.audit.export_ocsf import uid_of
from capsign_cli.audit.timeline_data import LAST_MS

NUMBERS = {
    "index": "UBIGINT",
    "key_version": "UINTEGER",
    "second_key_version": "UINTEGER",
    "sequence": "UBIGINT",
    "last_sequence": "UBIGINT",
    "place": "UINTEGER",
    "names_leaf": "UBIGINT",
    "elapsed_ms": "UINTEGER",
    "handles": "UINTEGER",
    "verified": "UINTEGER",
    "failed": "UINTEGER",
    "epoch": "UBIGINT",
    "since_ms": "UBIGINT",
    "count": "UINTEGER",
}
TEXTS = (
    *("stream", "what", "outcome", "reason", "workload", "tenant", "key", "algorithm", "custody"),
    *("purpose", "context_digest", "grant", "handle_serial", "cert_key_hash", "caller"),
    *("intent_id", "commitment", "signature_hash", "second_algorithm", "second_custody"),
    *("second_context_digest", "second_signature_hash", "policy_digest", "pod_uid", "boot_id"),
    *("batch_hash", "actor", "act", "target", "subject", "digest", "proposal_id", "rollout"),
)
COLUMNS = {
    "uid": "VARCHAR",
    "time": "TIMESTAMP",
    **dict.fromkeys(TEXTS, "VARCHAR"),
    **NUMBERS,
    "closes": "BOOLEAN",
    "details": "JSON",
}
"""The schema: columns and their types, as DuckDB names them. Bytes are hexadecimal text, ids UUIDs
as text, times UTC, at most the last millisecond of the year 9999; `details` is an object with what
only some kinds of events have; what does not apply is NULL.
"""

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "memory_limit": "256MB",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class ParquetSink:
    """Each batch becomes a file, which has its name when it is complete and durable."""

    most = 20_000

    def __init__(self, folder: Path, origin: str) -> None:
        import duckdb

        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".part-*"):
            left.unlink()
        self._folder = folder
        self._origin = origin
        self._database = duckdb.connect(":memory:", config=_SETTINGS)

    def take(self, events: Sequence[Event], first: tuple[int, int]) -> None:
        name = f"part-{first[0]:012}-{first[1]:05}.parquet"
        partial = self._folder / f".{name}"
        with NamedTemporaryFile("w", dir=self._folder, prefix=".part-", suffix=".json") as rows:
            for event in events:
                json.dump({"uid": uid_of(self._origin, event), **described(event)}, rows)
                rows.write("\n")
            rows.flush()
            self._database.execute(_copy(Path(rows.name), partial))
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(self._folder / name)
        sync_directory(self._folder)

    def close(self) -> None:
        self._database.close()


def _copy(rows: Path, to: Path) -> str:
    read = {name: "UBIGINT" if name == "time" else kind for name, kind in COLUMNS.items()}
    read["time_ms"] = read.pop("time")
    kinds = ", ".join(f"{_quoted(name)}: '{kind}'" for name, kind in read.items())
    chosen = ", ".join(
        f"make_timestamp(least(time_ms, {LAST_MS})::BIGINT * 1000) AS time"
        if name == "time"
        else f'"{name}"'
        for name in COLUMNS
    )
    source = f"read_json({_quoted(str(rows))}, format='newline_delimited', columns={{{kinds}}})"
    options = "FORMAT parquet, COMPRESSION zstd"
    # COPY takes no parameters; its names are ours, and both paths are quoted
    return f"COPY (SELECT {chosen} FROM {source}) TO {_quoted(str(to))} ({options})"  # noqa: S608


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
