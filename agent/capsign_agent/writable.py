"""Whether a directory can be written, or made. It is checked without writing anything."""

from __future__ import annotations

import os
from pathlib import Path


def obstacle(directory: Path) -> str:
    """Why this process cannot make or write the directory, as words to follow its path; empty if it
    can.
    """
    try:
        here = directory
        while not here.exists() and not here.is_symlink():
            here = here.parent
        if not here.is_dir():
            return f"cannot be made: {here} is no directory"
        if not os.access(here, os.W_OK | os.X_OK, effective_ids=True):
            return (
                f"cannot be written: user {os.geteuid()} may not write to {here}, or its file "
                f"system is read-only"
            )
    except OSError as error:
        return f"cannot be looked at ({(error.strerror or type(error).__name__).lower()})"
    return ""
