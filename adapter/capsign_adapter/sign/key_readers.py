"""Remembers who fetched public keys, and tells the store now and then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Lock

from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.readiness import is_named
from capsign_adapter.model.key_readers import ANONYMOUS, BY_HTTPS, KeyReader
from capsign_adapter.store.interfaces.key_readers import KeyReaders as Store

EVERY_MS = 30_000
"""A reader that fetches the same version again is written so often at most. One that has a newer
version is written with the next `flush`.
"""

MOST = 65_536
"""Readers that are remembered. Above that all are forgotten once they are written: the store has
them.
"""

Key = tuple[str, str]


class KeyReaders:
    """Of one replica; any thread. What was not written when the process ends is lost: a reader
    fetches again before its keys are old.
    """

    def __init__(
        self, store: Store, policy: Callable[[], Policy], clock: Callable[[], int]
    ) -> None:
        """`clock` tells milliseconds since 1970."""
        self._store = store
        self._policy = policy
        self._clock = clock
        self._lock = Lock()
        self._pending: dict[Key, KeyReader] = {}
        self._written: dict[Key, KeyReader] = {}

    def served(self, grant: str, workload: str, newest: int, sequence: int) -> None:
        """The public keys of a grant were given to this workload, with versions up to `newest`, as
        they are at the revocation epoch `sequence`. What the policy has not is not remembered, and
        whom it does not know by HTTPS counts as ANONYMOUS.
        """
        policy = self._policy()
        found = policy.grant(grant)
        if found is None or not newest:
            return
        if workload.startswith(BY_HTTPS):
            name = workload.removeprefix(BY_HTTPS)
            workload = workload if is_named(policy, found.tenant, name) else ANONYMOUS
        seen = KeyReader(
            found.tenant, found.key, grant, workload, newest, sequence, 1, self._clock()
        )
        reader = (grant, workload)
        with self._lock:
            before = self._pending.get(reader)
            if before is None or before.version < newest:
                if before is None and len(self._pending) >= MOST:
                    return
                self._pending[reader] = seen
            elif before.version == newest:
                self._pending[reader] = replace(seen, fetches=before.fetches + 1)

    def flush(self) -> None:
        """Write what is due. Raises what the store raises; then it is due still."""
        now = self._clock()
        with self._lock:
            due = {name: seen for name, seen in self._pending.items() if self._is_due(name, now)}
        if not due:
            return
        self._store.note_key_readers(list(due.values()), now)
        with self._lock:
            if len(self._written) + len(due) > MOST:
                self._written.clear()
            for name, seen in due.items():
                self._written[name] = seen
                self._subtract(name, seen)

    def _is_due(self, name: Key, now_ms: int) -> bool:
        written = self._written.get(name)
        if written is None or written.version != self._pending[name].version:
            return True
        # of a clock that was put back nothing follows
        return not 0 <= now_ms - written.fetched_ms < EVERY_MS

    def _subtract(self, name: Key, written: KeyReader) -> None:
        """Keep what came while it was written."""
        now = self._pending[name]
        rest = now.fetches - written.fetches if now.version == written.version else now.fetches
        if rest:
            self._pending[name] = replace(now, fetches=rest)
        else:
            del self._pending[name]
