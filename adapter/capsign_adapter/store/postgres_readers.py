"""The connections on which a process reads PostgreSQL, kept by psycopg-pool.

The pool connects on threads of its own and tells a caller that waits only that it waited too long.
Here a caller is told why there is no connection as soon as an attempt that began after its call has
failed, and the next caller makes the next attempt: after an outage nobody sits out a back-off.
"""

from __future__ import annotations

import logging
import sys
import time

from psycopg_pool import ConnectionPool, PoolTimeout

from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.postgres_connection import Link, SilentError, Target

MAX_READERS = 32
"""Reading connections of one process; more threads than that wait for a turn."""

WAIT_S = 10.0
"""Longest wait for a connection while others have all of them, seconds."""

_LOOK_S = 0.05
"""Between looks at whether the attempt to connect has failed, seconds."""

_IDLE_S = 600.0
"""A connection goes that nobody has needed for so long, seconds."""

# Its warnings repeat libpq's text, which may hold values; the error that a caller gets says it all.
logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


class Readers:
    """Any thread may call any method."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._failed_at = 0.0
        self._failure: BaseException | None = None
        self._pool = ConnectionPool(
            kwargs=target.arguments,
            connection_class=Link,
            configure=target.check,
            min_size=0,
            max_size=MAX_READERS,
            max_idle=_IDLE_S,
            reconnect_timeout=0.0,
            reconnect_failed=self._note_failure,
            num_workers=2,
            open=True,
        )

    @property
    def idle(self) -> int:
        """Connections that wait for somebody."""
        return self._pool.get_stats()["pool_available"]

    def borrow(self) -> Link:
        """A connection; give it back, or discard it. Raises what connecting raised, and
        StoreUnavailableError after WAIT_S.
        """
        begun = time.monotonic()
        while True:
            try:
                return self._pool.getconn(timeout=_LOOK_S)
            except PoolTimeout:
                if self._failure is not None and self._failed_at >= begun:
                    raise self._failure from None
                if time.monotonic() - begun >= WAIT_S:
                    raise StoreUnavailableError(
                        f"{self._target}: the readers of this process waited {WAIT_S:g} s for a "
                        f"connection."
                    ) from None

    def give_back(self, link: Link) -> None:
        """The connection is good."""
        link.served = True
        self._pool.putconn(link)

    def discard(self, link: Link, error: BaseException) -> bool:
        """The connection has failed. Returns whether it had only died while it was idle: then the
        same is worth asking on another one.

        Reading twice is harmless; every idle connection of a restarted server is dead. One that is
        silent is not: the next would be too, and each takes its whole wait.
        """
        died_idle = link.served and link.closed and not isinstance(error, SilentError)
        link.close()
        self._pool.putconn(link)
        return died_idle

    def close(self) -> None:
        """Close what is idle, and what is lent when it comes back."""
        self._pool.close(timeout=1.0)

    def _note_failure(self, _: ConnectionPool[Link]) -> None:
        """The pool calls this while it handles the error."""
        self._failure, self._failed_at = sys.exc_info()[1], time.monotonic()
