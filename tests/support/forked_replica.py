"""A replica that serves a fork: a copy of the store that went another way."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from pathlib import Path

from capsign_adapter.store.open import open_store
from capsign_wire import sqlite_url
from support.dev import Dev


def store_of(dev: Dev) -> Path:
    """The file that the deployment's log is in."""
    return Path(sqlite_url.path_of(dev.about["store"]))


def forked(store: Path, to: Path) -> None:
    """A copy that goes on by itself: with entries that are in no other."""
    with sqlite3.connect(store) as source, sqlite3.connect(to) as target:
        source.backup(target)
    source.close()
    target.close()
    to.chmod(0o600)
    copy = open_store(f"sqlite://{to}")
    try:
        copy.append(copy.entries(0, 1) * 100, 1)
    finally:
        copy.close()


def serve_the_fork(dev: Dev, fork: Path) -> subprocess.Popen:
    """Start the second replica, which has ended, upon the fork."""
    about = dev.about["adapters"][1]
    settings = Path(about["config"])
    text = settings.read_text()
    changed = re.sub(re.escape(str(store_of(dev))), str(fork), text)
    assert changed != text
    settings.write_text(changed)
    process = dev.start_adapter(1)
    dev.wait_serving(about["health"])
    return process
