"""The release before rollouts: its agent and its client, from the history of this repository, on
the libraries of now.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

COMMIT = "d54a0af"
"""The last commit before policies, keys and rollouts had versions."""

_CALLERS = ("agent", "clients/python", "proto/python")
_MODULES = ("adapter", "clients/cli", "evidence", "k8s/injector", *_CALLERS)
EVERYTHING = (*_MODULES, "softhsm")


def unpacked(
    directory: Path, folders: tuple[str, ...] = _CALLERS, commit: str = COMMIT
) -> dict[str, str]:
    """Its sources are there; the environment in which Python finds them before those of now."""
    here = Path(__file__).parents[2]
    archive = ["git", "-C", str(here), "archive", commit, *folders]
    made = subprocess.run(archive, capture_output=True, check=False)
    if made.returncode:
        raise RuntimeError(
            f"{commit} is not in this clone, and what it is cannot be tested without: run "
            f"`git fetch --unshallow`. Git said: {made.stderr.decode()}"
        )
    directory.mkdir()
    subprocess.run(["tar", "-x", "-C", str(directory)], input=made.stdout, check=True)
    return {"PYTHONPATH": os.pathsep.join(str(directory / folder) for folder in folders)}
