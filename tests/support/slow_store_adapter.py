"""The adapter, except that each commit of its store takes a hundred times as long while the file
CAPSIGN_TEST_SLOW is there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from capsign_adapter import __main__
from capsign_adapter.store import sqlite

SLOWER = 100
MOST_S = 1.0
"""A commit that had to wait by itself is not made to wait for minutes."""


def install(told: Path) -> None:
    commit = sqlite.SqliteStore.commit

    def slow(store: Any, epoch: int, drafts: Any, now_ms: int) -> Any:
        began = time.monotonic()
        done = commit(store, epoch, drafts, now_ms)
        if told.exists():
            time.sleep(min(MOST_S, (time.monotonic() - began) * (SLOWER - 1)))
        return done

    sqlite.SqliteStore.commit = slow


if __name__ == "__main__":
    install(Path(os.environ["CAPSIGN_TEST_SLOW"]))
    __main__.main()
