"""Which engine serves the applications' sockets of a measured deployment (`front.engine`, decision
77).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from capsign_agent.front_settings import ENGINES, NATIVE_PACKAGE

__all__ = ["DEFAULT", "ENGINES", "demand", "settings"]

DEFAULT = "grpcio"
"""What an agent serves with if its configuration says nothing."""


def settings(engine: str) -> Mapping[str, str]:
    """The text that the settings of each kind of process get, for `Deployment.restart_with`."""
    return {"agent": f'\n[front]\nengine = "{engine}"\n', "adapter": ""}


def demand(engine: str) -> None:
    """Raise SystemExit, and say what to do, if this engine is not installed here."""
    if engine == "native" and importlib.util.find_spec(NATIVE_PACKAGE) is None:
        raise SystemExit(
            "The engine native needs pygrpc-native, which is not installed:\n"
            "  .venv/bin/pip install --require-hashes -r requirements/agent-native.lock"
        )
