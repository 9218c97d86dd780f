"""Killed with SIGKILL in any step of moving leaves to cold files, in a process of its own: the log
is whole after each, and the next process goes on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.sign.retention import Retention
from capsign_adapter.store.open import create_store, open_store
from support.drafts import NOW, audit, draft, logged

pytestmark = pytest.mark.system

CHILD = """
import os, signal, sys
from pathlib import Path
from capsign_adapter.store.open import open_store
sys.path.insert(0, sys.argv[4])
from system.test_retention_kills import retention

store, point = open_store(sys.argv[1]), sys.argv[3]
real = os.fsync, store.retire
count = 0

def fsync(descriptor):
    global count
    count += 1
    if point == f"sync {count}":
        os.kill(os.getpid(), signal.SIGKILL)
    real[0](descriptor)

def retire(*arguments):
    if point == "before the transaction":
        os.kill(os.getpid(), signal.SIGKILL)
    found = real[1](*arguments)
    if point == "after the transaction":
        os.kill(os.getpid(), signal.SIGKILL)
    return found

os.fsync, store.retire = fsync, retire
retention(store, Path(sys.argv[2])).step()
print(count)
"""
"""Moves what is due once, and dies where it is told to."""

TESTS = Path(__file__).parents[1]


def retention(store, directory: Path) -> Retention:
    """Moves whatever there is, one tile a step."""
    store.use_cold_files(directory)
    size = min(store.moved_leaves() + 256, store.control().tree_size)
    return Retention(
        store,
        directory,
        1,
        lambda: Checkpoint(size, bytes(32), b"", NOW),
        lambda: bytes(32),
        lambda: NOW + 1000,
    )


@pytest.fixture
def store(tmp_path):
    url = f"sqlite://{tmp_path}/state/store.db"
    (tmp_path / "state").mkdir(mode=0o700)
    create_store(url)
    made = open_store(url)
    for _ in range(6):
        made.commit(made.control().revocation_epoch, [draft() for _ in range(200)], NOW)
        made.submit_audit(logged(audit()), NOW)
    yield url, made
    made.close()


def child(url: str, cold: Path, point: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, url, str(cold), point, str(TESTS)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_nothing_is_lost_or_half_wherever_it_is_killed(store, tmp_path):
    url, made = store
    cold = tmp_path / "cold"
    size = made.control().tree_size

    def everything():
        return made.entries(0, size), made.hashes(0, 0, size), made.audit_batches()

    before = everything()
    made.use_cold_files(cold)
    for point in ("sync 1", "sync 2", "sync 5", "sync 9", "before the transaction"):
        died = child(url, cold, point)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert made.moved_leaves() == 0
        assert everything() == before
    died = child(url, cold, "after the transaction")
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert made.moved_leaves() == 256
    assert everything() == before
    went_on = child(url, cold, "nowhere")
    assert went_on.returncode == 0, went_on.stderr
    assert int(went_on.stdout) > 9, "each of the points of above was reached"
    assert made.moved_leaves() == 512
    assert everything() == before
