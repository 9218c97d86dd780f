"""The adapter, except that it kills itself (SIGKILL) at a named step of a commit, the n-th time it
gets there.

CAPSIGN_TEST_CRASH is "step:n". Everything else is the real program.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

from capsign_adapter import __main__
from capsign_adapter.sign import release
from capsign_adapter.store import intents, log, sqlite
from capsign_adapter.store.transaction import WRITE_HEAD

STEPS = (
    "signed",
    "begun",
    "sequenced",
    "inserted",
    "head written",
    "committing",
    "committed",
    "released",
)


class Crash:
    """Counts visits to one step."""

    def __init__(self, told: str) -> None:
        self._step, count = told.rsplit(":", 1)
        self._left = int(count)

    def at(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def install(crash: Crash) -> None:
    """Put the steps around what the real program does, commits of signatures only."""
    plain, sequence, answer = intents.commit_plain, log.sequence, release.answer
    inside = [False]

    def commit_plain(*arguments: Any) -> Any:
        crash.at("begun")
        inside[0] = True
        return plain(*arguments)

    def counted(step: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            if inside[0]:
                crash.at(step)
            return result

        return call

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            commits = inside[0] and sql == "COMMIT"
            if commits:
                crash.at("committing")
            result = super().execute(sql, *values)
            if commits:
                inside[0] = False
                crash.at("committed")
            if inside[0] and sql == WRITE_HEAD:
                crash.at("head written")
            return result

        def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
            result = super().executemany(sql, *values)
            if inside[0]:
                crash.at("inserted")
            return result

    def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:
        return real_connect(*arguments, **{**named, "factory": Connection})

    def released(batch: Any) -> Any:
        answered = answer(batch)
        crash.at("released")
        return answered

    real_commit, real_connect = sqlite.SqliteStore.commit, sqlite3.connect

    def commit(store: Any, *arguments: Any) -> Any:
        crash.at("signed")
        return real_commit(store, *arguments)

    intents.commit_plain = commit_plain
    log.sequence = counted("sequenced", sequence)
    release.answer = released
    sqlite3.connect = connect
    sqlite.SqliteStore.commit = commit


if __name__ == "__main__":
    install(Crash(os.environ["CAPSIGN_TEST_CRASH"]))
    __main__.main()
