"""A replica of the release before sealed results, beside one that seals them (decision 65)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support import older_replica, previous_release

BEFORE_SEALED = "e287be4b^"
FOLDERS = ("adapter", "evidence", "proto/python", "tests")


def test_it_refuses_what_it_cannot_read_and_signs_nothing_twice(tmp_path: Path) -> None:
    """It fails the batch, which the caller hears as *unknown*: what was signed stays signed once,
    and a call that was beside it is kept for whoever asks again.
    """
    older = previous_release.unpacked(tmp_path / "older", FOLDERS, BEFORE_SEALED)
    (tmp_path / "older_replica.py").write_text(Path(older_replica.__file__).read_text())
    said = subprocess.run(
        [sys.executable, tmp_path / "older_replica.py", tmp_path / "store"],
        env=os.environ | older,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout.splitlines()[-1])
    assert (told["raised"], told["answered"]) == ("StoredResultError", 0)
    assert told["of_intent"] == 1
    assert told["neighbour_kept"] == told["of_neighbour"]
