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


_ADDED = (
    "CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 1), "
    "at_s INTEGER NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS contradictions (origin_hash TEXT PRIMARY KEY, "
    "size INTEGER NOT NULL, root BLOB NOT NULL, proven INTEGER NOT NULL, note BLOB NOT NULL, "
    "held BLOB) STRICT",
)
"""Tables that a state of before does not have. Nothing that must not be lost is in them."""


class State:
    """For one thread."""

    def __init__(self, folder: Path) -> None:
        """Opens what `create` made. Raises WitnessError."""
        self._db = _open(folder, "rw")
        for statement in _ADDED:
            self._db.execute(statement)

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
        self,
        head: TreeHead,
        admit: Callable[[Held], None],
        note: Callable[[int], bytes],
        clock_s: Callable[[], int],
    ) -> bytes:
        """Store `head` as the last tree of its log if `admit`, which gets the one before, does not
        raise; returns the note, made by `note`, that was stored with it. `note` gets the time,
        which never goes back, also where the clock does.

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
            row = self._db.execute("SELECT at_s FROM clock WHERE id = 1").fetchone()
            at_s = max(clock_s(), row[0] if row else 0)
            made = note(at_s)
            self._db.execute("REPLACE INTO clock VALUES (1, ?)", (at_s,))
            # what only seemed not to extend the tree before, by a wrong proof, does after all
            self._db.execute(
                "DELETE FROM contradictions WHERE origin_hash = ? AND size = ? AND root = ?",
                (key, head.size, head.root),
            )
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

    def keep_contradiction(self, head: TreeHead, note: bytes, *, proven: bool) -> None:
        """Keep a note that the log signed and that contradicts the one held, with that one: one for
        each log. The first that proves it stands; before there is one, the last.
        """
        self._db.execute(
            "INSERT INTO contradictions "
            "SELECT ?1, ?2, ?3, ?4, ?5, (SELECT note FROM logs WHERE origin_hash = ?1) "
            "WHERE true ON CONFLICT (origin_hash) DO UPDATE SET size = excluded.size, "
            "root = excluded.root, proven = excluded.proven, note = excluded.note, "
            "held = excluded.held WHERE proven = 0",
            (origin_hash(head.origin), head.size, head.root, proven, note),
        )

    def contradiction(self, key: str) -> tuple[bytes, bytes | None, bool] | None:
        """The note that contradicts, the one held then if any, and whether the two prove it."""
        row = self._db.execute(
            "SELECT note, held, proven FROM contradictions WHERE origin_hash = ?", (key,)
        ).fetchone()
        return (bytes(row[0]), bytes(row[1]) if row[1] else None, bool(row[2])) if row else None

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
