"""How long the parts of the agent wait, and by which clock certificates are judged: one object,
handed to each part that waits.

An agent runs with what stands here. Who drives one faster, as the tests do, hands in another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from capsign_agent.retry_delay import retry_delay_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds, unless it says otherwise."""

    certificate_clock: Callable[[], float] = time.time
    """Seconds since 1970. Says when a certificate is to be renewed, and when it has ended."""

    retry_delay_s: Callable[[int], float] = retry_delay_s
    """How long to wait after so many failures in a row."""

    look_at_clock_s: float = 60.0
    """A machine that slept or whose clock was set is noticed this soon by whoever waits to renew a
    certificate.
    """

    look_at_files_s: float = 2.0
    """How often the files of an identity are looked at."""

    look_at_handles_s: float = 2.0
    """How often a wait to renew handles looks at the clock: it may have been set, or the node may
    have slept, and no timer notices either.
    """

    spread_s: float = 5.0
    """All agents hear of a new trust bundle at once, and each then opens new connections: they do
    so over this long.
    """

    stream_idle_s: float = 10.0
    """A signing stream that had nothing to do for so long is opened anew. The adapter ends one that
    is silent for three times as long, because it may hold half a message; it must not do so while a
    batch is on its way.
    """

    second_try_s: float = 0.05
    """How long calls whose answer was lost rest before they are sent again. When a replica dies all
    of its streams do, but not all have noticed yet: the second try must not go to one of them.
    """

    keys_fresh_s: float = 1.0
    """A signature that does not verify under keys older than this is tried once more under fresh
    ones.
    """

    refusal_later_s: float = 0.25
    """How much later a socket hears of refusals that are above its rate of them."""


USUAL = Timing()
"""How an agent runs."""
