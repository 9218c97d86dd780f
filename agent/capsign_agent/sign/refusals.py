"""Records what policy refuses in the pod, before the caller hears it, and slows down a socket that
is refused without end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from capsign_wire.failures import FailureError

from capsign_agent.handles.rate_limit import RateLimit
from capsign_agent.journal import records
from capsign_agent.journal.journal import Journal
from capsign_agent.sign.group_work import GroupWork
from capsign_agent.timing import Timing

REFUSALS_PER_SECOND, REFUSALS_AT_ONCE = 100, 1024
"""Rate and burst of refused items of one socket; above that its refusals are delayed."""


class Refusals:
    """For all sockets. For one event loop."""

    def __init__(
        self, journal: Journal, timing: Timing, clock: Callable[[], float] = time.time
    ) -> None:
        self._journal = journal
        self._later_s = timing.refusal_later_s
        self._clock = clock
        self._rates: dict[str, RateLimit] = {}

    async def record(self, socket: str, refused: Sequence[GroupWork], deadline: float) -> None:
        """Journal what was refused to a socket, and wait if that is above its rate. If the journal
        has no room the items fail with JOURNAL_FULL instead.
        """
        piece = records.Piece()
        for work in refused:
            _add(piece, work, socket)
        try:
            self._journal.refuse(piece, socket)
        except FailureError as error:
            for work in refused:
                work.refuse(work.refused, error)
        if self._over(socket, records.calls_in(piece)):
            # refusals cost the loop that serves all sockets
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, min(self._later_s, left)))

    def _over(self, socket: str, items: int) -> bool:
        now = self._clock()
        rate = self._rates.get(socket)
        if rate is None:
            rate = self._rates[socket] = RateLimit(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE, now)
        return rate.take(items, now).granted < items


def _add(piece: records.Piece, work: GroupWork, socket: str) -> None:
    error = work.refusal
    assert error is not None
    grant = work.held.grant if work.held is not None else ""
    ids = [work.items[position].intent_id for position in work.refused]
    algorithm = work.group.algorithm
    records.failed(piece, ids, grant, algorithm, socket, error.outcome, error.reason)
