"""Where the build reads and writes."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
HERE = REPOSITORY / "k8s" / "images"
REQUIREMENTS = REPOSITORY / "requirements"
OUTPUT = REPOSITORY / "build" / "images"


def cache() -> Path:
    """What outlives a checkout: Debian packages, wheels, and buildah's layers."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "capsign"
