"""The adapter, except that it kills itself (SIGKILL) at a named step of a commit, the n-th time it
gets there.

CAPSIGN_TEST_CRASH is "step:n". Everything else is the real program.
"""

from __future__ import annotations

import os
import signal
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
    run, insert = sqlite._SqliteTransaction.run, sqlite._SqliteTransaction.insert
    send = sqlite._SqliteTransaction.send
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

    def statement(transaction: Any, sql: str, *values: Any) -> Any:
        commits = inside[0] and sql == "COMMIT"
        if commits:
            crash.at("committing")
        result = run(transaction, sql, *values)
        if commits:
            inside[0] = False
            crash.at("committed")
        return result

    def sent(transaction: Any, sql: str, *values: Any) -> None:
        send(transaction, sql, *values)
        if inside[0] and sql == WRITE_HEAD:
            crash.at("head written")

    def released(batch: Any) -> Any:
        answered = answer(batch)
        crash.at("released")
        return answered

    real_commit = sqlite.SqliteStore.commit

    def commit(store: Any, *arguments: Any) -> Any:
        crash.at("signed")
        return real_commit(store, *arguments)

    intents.commit_plain = commit_plain
    log.sequence = counted("sequenced", sequence)
    release.answer = released
    sqlite._SqliteTransaction.run = statement
    sqlite._SqliteTransaction.send = sent
    sqlite._SqliteTransaction.insert = counted("inserted", insert)
    sqlite.SqliteStore.commit = commit


if __name__ == "__main__":
    install(Crash(os.environ["CAPSIGN_TEST_CRASH"]))
    __main__.main()
