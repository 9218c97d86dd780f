"""`--check-config`: what a start would meet on this machine. Nothing is made, bound or written, and
no lock is kept.

It checks in the order of a start. It reports what a start would merely wait for (a token that is
not mounted yet, a Workload API that is not up) as well as what would end it. It asks no adapter.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from capsign_wire.settings import SettingsError

from capsign_agent.config import Config
from capsign_agent.front import sockets
from capsign_agent.front.sockets import SocketError
from capsign_agent.identity import configured_source
from capsign_agent.journal.directory import JournalError, look_at
from capsign_agent.witness.memory import WitnessMemory


def check(config: Config, clock: Callable[[], float] = time.time) -> None:
    """Raises SettingsError with a sentence that names the key or path, and the fix."""
    configured_source.check(config, clock())
    try:
        for one in config.sockets:
            sockets.look_at(one.path, int(one.directory_mode, 8))
        for path in (config.health.path, config.probe_path):
            sockets.look_at(path)
        look_at(config.journal.dir)
        WitnessMemory(config.journal.dir, config.log.key).view()
    except (SocketError, JournalError) as error:
        raise SettingsError(str(error)) from None
