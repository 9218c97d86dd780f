"""What holds for every test."""

from __future__ import annotations

import os
import sys

from hypothesis import settings
from support import scratch

# No deadline: how long an example takes says something of the machine, and nothing of the code.
settings.register_profile("capsign", parent=settings.default, deadline=None)
settings.load_profile("capsign")

# Bytecode is kept, whatever the machine says: every worker would rewrite all modules of the tests,
# which takes 16 seconds, and every process that a test starts would compile ours.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

scratch.use_memory()

# Each worker has ports of its own: an adapter that a test has killed must find its port free when
# it starts again. 12,000 ports, 1,500 for each of eight workers at most.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_first = 20_000 + 1_500 * (_worker % 8)
os.environ["CAPSIGN_DEV_PORTS"] = f"{_first}-{_first + 1_499}"
