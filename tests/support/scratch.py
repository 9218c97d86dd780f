"""Where tests put their files: in memory, where the machine has room for it.

A store, a token, a journal and a database wait for the disk at each write, in every test anew. What
they promise of a power failure no test can show; after kill -9 a file in memory is there as one on
a disk is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 4 * 1024**3
"""Free bytes for which it is used: one run of all tests takes less than a tenth."""


_DISK = "CAPSIGN_TESTS_ON_DISK"
"""Where temporary files were before, for the workers of a run too."""


def in_memory(place: Path = MEMORY) -> bool:
    """Returns whether tests can work in this directory: there is room, and programs can be run."""
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        return False
    return shutil.disk_usage(place).free >= ROOM and not os.statvfs(place).f_flag & os.ST_NOEXEC


def use_memory() -> None:
    """From now on temporary files of this process and its children are in memory. TMPDIR, if it is
    set, says otherwise.
    """
    if "TMPDIR" not in os.environ and in_memory():
        os.environ[_DISK] = tempfile.gettempdir()
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # it is looked up again


def on_disk() -> str:
    """Returns the directory for temporary files that are not to be in memory: what is as large as a
    container's image, or is written under a limit of memory.
    """
    return os.environ.get(_DISK, tempfile.gettempdir())
