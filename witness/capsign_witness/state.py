"""What a witness has cosigned: of each log the last tree, and its note. In SQLite, each change
durable when it returns.

The state is as precious as the keys: without it a witness would cosign a second tree. So it is made
once, by `init`, and its absence is an error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.witness_protocol import Held, origin_hash

from capsign_witness.failures import WitnessError

STATE_FILE = "state.db"
BUSY_S = 5.0
"""Longest wait for another process that writes."""


class State:
    """For one thread."""

    def __init__(self, folder: Path) -> None:
        """Opens what `create` made. Raises WitnessError."""
        self._db = _open(folder, "rw")

    @staticmethod
    def create(folder: Path) -> None:
        """Make the state of a new witness. Raises WitnessError if there is one."""
        if (folder / STATE_FILE).exists():
            raise WitnessError(f"{folder / STATE_FILE} is there already. Nothing was made.")
        db = _open(folder, "rwc")
        db.execute(
            "CREATE TABLE logs (origin_hash TEXT PRIMARY KEY, size INTEGER NOT NULL, "
            "root BLOB NOT NULL, note BLOB NOT NULL) STRICT"
        )
        db.close()

    def move(
        self, head: TreeHead, admit: Callable[[Held], None], note: Callable[[], bytes]
    ) -> bytes:
        """Store `head` as the last tree of its log if `admit`, which gets the one before, does not
        raise; returns the note, made by `note`, that was stored with it.

        One transaction: no other call comes between the look and the change. It is durable when
        this returns; who dies before the commit has told nobody.
        """
        key = origin_hash(head.origin)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            row = self._db.execute(
                "SELECT size, root FROM logs WHERE origin_hash = ?", (key,)
            ).fetchone()
            admit(Held(row[0], bytes(row[1])) if row else Held())
            made = note()
            self._db.execute(
                "INSERT INTO logs VALUES (?, ?, ?, ?) ON CONFLICT (origin_hash) DO UPDATE SET "
                "size = excluded.size, root = excluded.root, note = excluded.note",
                (key, head.size, head.root, made),
            )
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return made

    def note(self, key: str) -> bytes | None:
        """The last note of the log whose origin has this hash, with our cosignatures."""
        row = self._db.execute("SELECT note FROM logs WHERE origin_hash = ?", (key,)).fetchone()
        return bytes(row[0]) if row else None

    def close(self) -> None:
        self._db.close()


def _open(folder: Path, mode: str) -> sqlite3.Connection:
    path = folder / STATE_FILE
    try:
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        # EXTRA syncs the directory too, once the journal is gone: the commit outlives the power
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA synchronous = EXTRA")
    except sqlite3.Error as error:
        raise WitnessError(
            f"{path} cannot be opened: {error}. It says what was cosigned: a witness without it "
            "must not go on under its name. Restore it, or make a new witness by `init`."
        ) from None
    return db
