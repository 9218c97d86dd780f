"""A replica that is killed while a checkpoint is signed, cosigned and published goes on from what
the witness holds, and never contradicts it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from capsign_adapter.store.open import create_store
from capsign_witness import keys
from capsign_witness.state import State
from support import crashing_publication


@pytest.mark.parametrize("step", crashing_publication.STEPS)
def test_a_kill_at_any_step_of_publication_is_gone_on_from(tmp_path, step):
    folder = tmp_path / "log"
    folder.mkdir(mode=0o700)
    create_store(f"sqlite://{folder}/store.db")
    keys.make(folder / "witness", "w.test")
    State.create(folder / "witness")

    def run(stops):
        command = [sys.executable, "-m", crashing_publication.__name__, str(folder), stops]
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert ran.returncode in (0, -9), ran.stderr
        return ran.returncode, [line.split() for line in ran.stdout.splitlines()]

    code, before = run(f"{step}:3")
    assert (code, len(before)) == (-9, 2)
    code, after = run("never:1")
    assert code == 0
    assert int(before[-1][0]) < int(after[0][0])
    assert len(after) == crashing_publication.ROUNDS
