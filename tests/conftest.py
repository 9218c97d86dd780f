"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings
from support import scratch

# No deadline: how long an example takes says something of the machine, and nothing of the code.
settings.register_profile("capsign", parent=settings.default, deadline=None)
settings.load_profile("capsign")

scratch.use_memory()
