"""How long the parts of the agent wait, and the clock by which certificates are judged: one object
that each of them is given.

An agent runs with the defaults. Tests give others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from capsign_agent.retry_delay import retry_delay_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds, unless stated otherwise."""

    certificate_clock: Callable[[], float] = time.time
    """Seconds since 1970. Says when a certificate is to be renewed, and when it has ended."""

    retry_delay_s: Callable[[int], float] = retry_delay_s
    """Returns the seconds to wait after so many failures in a row."""

    look_at_clock_s: float = 60.0
    """How often a wait to renew a certificate looks at the clock. It may have been set, or the
    machine may have slept, and a timer notices neither.
    """

    look_at_files_s: float = 2.0
    """How often the files of an identity are looked at."""

    look_at_handles_s: float = 2.0
    """How often a wait to renew handles looks at the clock. It may have been set, or the node may
    have slept, and a timer notices neither.
    """

    spread_s: float = 5.0
    """All agents hear of a new trust bundle at once and then open new connections. They spread that
    over so many seconds.
    """

    stream_idle_s: float = 10.0
    """A signing stream that was idle for so long is opened anew. The adapter ends a stream that is
    silent for three times as long, because it may hold half of a message; it must not do so while a
    batch is on its way.
    """

    second_try_s: float = 0.05
    """How long calls whose answer was lost wait before they are sent again. When a replica dies,
    not all of its streams notice at once, and the second attempt must not use one of them.
    """

    keys_fresh_s: float = 1.0
    """If a signature does not verify under keys that were fetched longer ago than this, they are
    fetched anew and it is tried once more.
    """

    covered_after_s: Callable[[float], float] = lambda look_every_s: max(300.0, 3 * look_every_s)
    """After how long the checkpoints of an adapter must cover a leaf that it told of, by how often
    it is looked at. One that an honest adapter shows is not older than the time between two looks.
    """

    refusal_later_s: float = 0.25
    """How much a refusal is delayed on a socket that is above its rate of refusals."""


USUAL = Timing()
"""The timing with which an agent runs."""
