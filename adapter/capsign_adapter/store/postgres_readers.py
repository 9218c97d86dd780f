"""The connections on which a process reads PostgreSQL, kept by psycopg-pool.

The pool connects on threads of its own, and tells a waiting caller only that it has waited too
long. Here a caller gets the reason as soon as an attempt to connect that began after its call has
failed, and the next call makes the next attempt, so that no caller waits for a back-off after an
outage.
"""

from __future__ import annotations

import logging
import sys
import time

from psycopg_pool import ConnectionPool, PoolTimeout

from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.postgres_connection import Link, SilentError, Target

_LOOK_S = 0.05
"""Time between checks whether an attempt to connect has failed, seconds."""

_IDLE_S = 600.0
"""An unused connection is closed after this time, seconds."""

# Its warnings repeat libpq's text, which may hold values; the error that a caller gets says it all.
logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


class Readers:
    """The reading connections. Safe for any thread."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._failed_at = 0.0
        self._failure: BaseException | None = None
        self._pool = ConnectionPool(
            kwargs=target.arguments,
            connection_class=Link,
            configure=target.check,
            min_size=0,
            max_size=target.patience.readers,
            max_idle=_IDLE_S,
            reconnect_timeout=0.0,
            reconnect_failed=self._note_failure,
            num_workers=2,
            open=True,
        )

    @property
    def idle(self) -> int:
        """How many connections are idle."""
        return self._pool.get_stats()["pool_available"]

    def borrow(self) -> Link:
        """Returns a connection, to be given back or discarded. Raises what connecting raised, and
        StoreUnavailableError after `Patience.reader_s`.
        """
        begun, wait_s = time.monotonic(), self._target.patience.reader_s
        while True:
            try:
                return self._pool.getconn(timeout=_LOOK_S)
            except PoolTimeout:
                if self._failure is not None and self._failed_at >= begun:
                    raise self._failure from None
                if time.monotonic() - begun >= wait_s:
                    raise StoreUnavailableError(
                        f"{self._target}: the readers of this process waited {wait_s:g} s for a "
                        f"connection."
                    ) from None

    def give_back(self, link: Link) -> None:
        """Return a connection that works."""
        link.served = True
        self._pool.putconn(link)

    def discard(self, link: Link, error: BaseException) -> bool:
        """Close a connection that failed. Returns whether it may have died while it was idle; then
        the caller should read again on another one.

        Reading twice is harmless, and all idle connections of a restarted server are dead. It is
        not worth trying again after a timeout: the next connection would time out too.
        """
        died_idle = link.served and link.closed and not isinstance(error, SilentError)
        link.close()
        self._pool.putconn(link)
        return died_idle

    def close(self) -> None:
        """Close idle connections now, and lent ones when they are returned."""
        self._pool.close(timeout=1.0)

    def _note_failure(self, _: ConnectionPool[Link]) -> None:
        """Called by the pool while it handles the error."""
        self._failure, self._failed_at = sys.exc_info()[1], time.monotonic()
