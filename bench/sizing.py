"""`python -m bench.sizing`: what a signature takes in the store, end to end.

Real processes: an application signs through its agent, the agent hands in its reports, all ends,
and the store is looked at: as it is, and once what answers repeated calls is dropped, as it is
after `limits.intent_retention`. Bytes a signature, of what the store itself takes on its disk.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capsign_adapter.store.interfaces.ledger import MAX_COLLECTED
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.store.open import open_store
from capsign_evidence.leaf_reader import Signed, decode
from capsign_wire import sqlite_url

from bench.deployment import Deployment

SHAPES = {
    "one call at a time": ("--threads", "1", "--no-coalesce"),
    "64 tasks": ("--tasks", "64"),
    "8 callers, batches of 100": ("--threads", "8", "--batch", "100"),
}
"""How the application calls: options of `bench.load`. How many share a batch follows from it."""


@dataclass(frozen=True)
class Place:
    """Where the store is; an empty URL: where `dev up` puts it."""

    url: str
    password_file: Path | None

    @property
    def options(self) -> list[str]:
        """Of `dev up`."""
        told = ["--store", self.url] if self.url else []
        if self.password_file is not None:
            told += ["--store-password-file", str(self.password_file)]
        return told


def main() -> None:
    arguments = _parser().parse_args()
    place = Place(arguments.postgresql, arguments.password_file)
    for shape, how in SHAPES.items():
        if arguments.shapes and shape not in arguments.shapes:
            continue
        # One call at a time is slow, and as even as can be: a tenth of them tells as much.
        wanted = arguments.signatures // (10 if shape == "one call at a time" else 1)
        with tempfile.TemporaryDirectory(prefix="capsign-sizing-") as scratch:
            print(json.dumps({"shape": shape, **measure(Path(scratch), place, how, wanted)}))
        if place.url:
            print("a PostgreSQL database serves one shape; empty it for the next", file=sys.stderr)
            return


def measure(scratch: Path, place: Place, how: Sequence[str], wanted: int) -> dict[str, float]:
    """Bytes a signature, by what they are for."""
    deployment = Deployment(scratch, 1, options=place.options)
    try:
        socket = deployment.socket
        url = place.url or sqlite_url.url(scratch / "dev" / "state" / "capsign.sqlite")
        empty = open_store(url, password_file=place.password_file)
        before, leaves_before = used(empty, place, url), empty.control().tree_size
        empty.close()
        signed = 0
        while signed < wanted:
            signed += _load(socket, how)
    finally:
        deployment.close()  # the agent hands in its last reports
    store = open_store(url, password_file=place.password_file)
    try:
        full, leaves = used(store, place, url), store.control().tree_size - leaves_before
        reported, own = leaf_bytes(store)
        while store.collect_garbage(time.time_ns() // 1_000_000, 0) == MAX_COLLECTED:
            pass
        kept = used(store, place, url)
    finally:
        store.close()
    return {
        "signatures": signed,
        "leaves": leaves,
        "new": round((full - before) / signed, 1),
        "for_good": round((kept - before) / signed, 1),
        "answers_of_repeated_calls": round((full - kept) / signed, 1),
        "leaf_of_a_signature": round(own / signed, 1),
        "report_of_a_signature": round(reported / signed, 1),
    }


def _load(socket: str, how: Sequence[str]) -> int:
    command = [sys.executable, "-m", "bench.load", socket, *how, "--seconds", "4"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout)["all_signatures"]) + 1  # one to warm up


def used(store: Store, place: Place, url: str) -> int:
    """Bytes that hold something. SQLite keeps the pages that it freed, PostgreSQL the rows until a
    vacuum: both are used again.
    """
    if store.name == "postgresql":
        import psycopg

        password = place.password_file.read_text().strip() if place.password_file else None
        with psycopg.connect(place.url, password=password, autocommit=True) as connection:
            connection.execute("VACUUM FULL")
        return store.size_bytes()
    with sqlite3.connect(sqlite_url.path_of(url)) as database:
        (pages,), (free,), (size,) = (
            database.execute(f"PRAGMA {name}").fetchone()
            for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


def leaf_bytes(store: Store) -> tuple[int, int]:
    """What leaves of reports, and of signatures, hold."""
    reported = own = at = 0
    while entries := store.entries(at, 1000):
        for entry in entries:
            if isinstance(decode(entry), Signed):
                own += len(entry)
            else:
                reported += len(entry)
        at += len(entries)
    return reported, own


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__)
    parser.add_argument("--signatures", type=int, default=20_000, help="at least, of each shape")
    parser.add_argument("--shape", dest="shapes", action="append", choices=[*SHAPES])
    parser.add_argument("--postgresql", default="", help="URL of an empty database")
    parser.add_argument("--password-file", type=Path)
    return parser


if __name__ == "__main__":
    main()
