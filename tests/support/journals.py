"""What a killed agent leaves of its journal."""

from __future__ import annotations

import shutil
from pathlib import Path

from capsign_agent.journal.journal import Journal


def kill(journal: Journal, directory: Path) -> None:
    """The life that this journal is of ends by kill -9: its directory is as its last write left it,
    and free.
    """
    left = directory.with_name(f"{directory.name}.left")
    shutil.copytree(directory, left)
    journal.close()
    shutil.rmtree(directory)
    left.rename(directory)


def last_segment(directory: Path) -> Path:
    """The segment that was written last, of the life that began last."""
    return max(directory.glob("*/*.seg"))
