"""What other processes do to a store in tests: commit side by side, and die at a chosen
statement.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capsign_adapter.store.errors import EpochMovedError
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.store.sqlite import SqliteStore
from support.drafts import APP, NOW, draft


def commit_batches(
    open_place: Callable[[], Store], ready: Any, results: Any, batches: int, size: int
) -> None:
    """Commit `batches` batches as soon as everybody is ready; puts (leaf index, leaf) of each
    draft. Run it in a process.
    """
    store = open_place()
    ready.wait()
    done = []
    for _ in range(batches):
        items = [draft() for _ in range(size)]
        while True:
            try:
                answers = store.commit(store.control().revocation_epoch, items, NOW)
                break
            except EpochMovedError:
                continue
        done += [
            (answer.leaf_index, item.leaf) for answer, item in zip(answers, items, strict=True)
        ]
    store.close()
    results.put(done)


def commit_until_killed(open_place: Callable[[], Store], acknowledged: Any, size: int) -> None:
    """Commit for ever; sends the intent ids and first leaf of each batch once its commit has
    returned.
    """
    store = open_place()
    while True:
        items = [draft() for _ in range(size)]
        answers = store.commit(1, items, NOW)
        acknowledged.send(([item.intent_id for item in items], answers[0].leaf_index))


class Die:
    """Kills this very process at the statement that starts with `prefix`: before it is run or right
    after.
    """

    def __init__(self, prefix: str, after: bool) -> None:
        self.prefix = prefix
        self.after = after

    def __call__(self, sql: str, run: Callable[[], Any]) -> Any:
        hit = sql.lstrip().startswith(self.prefix)
        if hit and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = run()
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


Watch = Callable[[str, Callable[[], Any]], Any]
"""Is shown each statement, and runs it."""


class WatchedConnection(sqlite3.Connection):
    """Somebody looks at every statement, unless it is a connection that only reads."""

    watch: Watch | None = None
    """Of the class: there is one for each store."""
    reads = False

    def execute(self, sql: str, *arguments: Any) -> Any:
        self.reads = self.reads or sql == "PRAGMA query_only = ON"
        return self._watched(sql, lambda: sqlite3.Connection.execute(self, sql, *arguments))

    def executemany(self, sql: str, *arguments: Any) -> Any:
        return self._watched(sql, lambda: sqlite3.Connection.executemany(self, sql, *arguments))

    def _watched(self, sql: str, run: Callable[[], Any]) -> Any:
        watch = type(self).watch
        return run() if watch is None or self.reads else watch(sql, run)


def open_watched(path: Path) -> tuple[SqliteStore, Callable[[Watch], None]]:
    """A store, and how to put somebody between it and its writing connection."""

    class Connection(WatchedConnection):
        pass

    def watch(by: Watch) -> None:
        Connection.watch = staticmethod(by)

    return SqliteStore(path, connection=Connection), watch


def commit_and_die(path: Path, prefix: str, after: bool, intent_id: bytes, told: Any) -> None:
    """Commit one draft of APP and die at a statement; sends True if the commit returned all the
    same.
    """
    store, watch = open_watched(path)
    item = draft(intent_id, workload=APP)
    store.commit(1, [draft(workload=APP)], NOW)
    watch(Die(prefix, after))
    store.commit(1, [item], NOW)
    told.send(True)
