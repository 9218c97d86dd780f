"""A witness without HTTP that kills itself (SIGKILL) at a step of a request.

Usage: crashing_witness.py DIRECTORY LOGS STEP REQUEST… Each request is a file; the status of each
answer is printed, and for 200 its cosignatures after it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from capsign_witness import keys
from capsign_witness.state import State
from capsign_witness.witness import Witness, known_logs

STEPS = ("begun", "looked", "written", "committing", "committed", "answered")


def main() -> None:
    folder, logs, stop, *requests = sys.argv[1:]

    def at(step: str) -> None:
        if step == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql == "COMMIT":
                at("committing")
            result = super().execute(sql, *values)
            after = {"BEGIN": "begun", "SELECT": "looked", "INSERT": "written"}
            at({"COMMIT": "committed"}.get(sql, after.get(sql.split()[0], "")))
            return result

    real = sqlite3.connect
    sqlite3.connect = lambda *args, **named: real(*args, **named, factory=Connection)
    witness = Witness(
        keys.load(Path(folder)),
        State(Path(folder)),
        known_logs(Path(logs).read_bytes()),
        lambda: 1_800_000_000,
    )
    for request in requests:
        answer = witness.add_checkpoint(Path(request).read_bytes())
        print(answer.status, flush=True)
        if answer.status == 200:
            print(answer.body.decode(), flush=True)
        at("answered")


if __name__ == "__main__":
    main()
