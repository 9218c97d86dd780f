"""Follows the log's tail in small steps. One replica at a time does, by a lease in the store; two
that both believe to have it do no harm, since each write names the revision that it continues.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
from capsign_evidence.incident_leaf import IncidentState
from capsign_evidence.leaf_fields import LeafError
from capsign_evidence.reconcile.incidents import Change, Incident
from capsign_evidence.reconcile.leaves import run_of
from capsign_evidence.reconcile.reconciler import Reconciler
from capsign_evidence.reconcile.state import State
from capsign_evidence.reconcile.timing import Timing
from capsign_wire import logs

from capsign_adapter.model.reconciliation import IncidentRow, Progress, Reconciliation
from capsign_adapter.store.interfaces.cold import ColdLeaves
from capsign_adapter.store.interfaces.evidence import AuditBatches, EvidenceLog
from capsign_adapter.store.interfaces.reconciliation import ReconciliationStore

STEP = 512
"""Most entries of one step: some ten milliseconds of work."""
BATCHES = 8
"""Batches read at once; each is at most a mebibyte."""
LEASE_MS = 30_000
RENEW_MS = 10_000
"""Between looks for the lease, and for what others found."""
SAVE_MS = 30_000
"""Between writes of what is remembered, while nothing is found: what a successor reads again."""


class Followed(ReconciliationStore, EvidenceLog, AuditBatches, ColdLeaves, Protocol):
    """The parts of the store that are read and written."""


class Follower:
    """Of one replica; for one thread. `standing` and `lag` may be read by any."""

    def __init__(
        self,
        store: Followed,
        timing: Timing,
        replica: bytes,
        policy_digest: Callable[[], bytes],
        now_ms: Callable[[], int],
        found: Callable[[Change], None] = lambda _: None,
    ) -> None:
        """`found` is told of each change that this replica wrote."""
        self._store = store
        self._timing = timing
        self._replica = replica
        self._policy_digest = policy_digest
        self._now_ms = now_ms
        self._found = found
        self._lease_due_ms = 0
        self._saved: Reconciliation | None = None
        """What the store has, if this replica leads."""
        self._saved_ms = 0
        self._reconciler: Reconciler | None = None
        self._turn = threading.Lock()
        self.standing: tuple[Incident, ...] = ()
        """The incidents that stood at the last step, or look."""
        self.position = 0
        """The next entry that would be read; 0 where another replica reads."""
        self.untold = self.unjudged = 0
        """See `Reconciler`; 0 where another replica reads."""

    @property
    def leads(self) -> bool:
        return self._reconciler is not None

    def step(self) -> bool:
        """Read some entries. Returns whether there are more. Raises what the store raises; then all
        since the last save is read again.
        """
        with self._turn:
            try:
                return self._step()
            except BaseException:
                self._forget()
                raise

    def _step(self) -> bool:
        now_ms = self._now_ms()
        if not self._lease_due_ms - RENEW_MS <= now_ms < self._lease_due_ms:  # or was put back
            self._lease_due_ms = now_ms + RENEW_MS
            if not self._store.lead_reconciliation(self._replica, now_ms, now_ms + LEASE_MS):
                self._forget()
                self.standing = tuple(row.incident for row in self._store.incidents())
                return False
        if self._reconciler is None:
            if not self._leads_now(now_ms):
                return False
            self._take_up()
        read = self._read_on()
        reconciler = self._reconciler
        assert reconciler is not None
        if read < STEP:
            reconciler.advance(now_ms)
        self._settle(reconciler, now_ms)
        self.standing, self.position = tuple(reconciler.standing), reconciler.state.position
        self.untold, self.unjudged = reconciler.untold, reconciler.unjudged
        return read == STEP

    def _leads_now(self, now_ms: int) -> bool:
        """A lease that was just renewed; after a failure the next look decides."""
        return self._lease_due_ms == now_ms + RENEW_MS

    def _take_up(self) -> None:
        saved = self._store.reconciliation()
        state = _decoded(saved.state)
        if not state.position:
            # What is in cold files already is for `capsign audit reconcile`.
            state.position = state.began = self._store.moved_leaves()
        standing = [row.incident for row in saved.rows]
        self._saved, self._saved_ms = saved, self._now_ms()
        self._reconciler = Reconciler(self._timing, self._entry_at, state, standing)

    def _read_on(self) -> int:
        reconciler = self._reconciler
        assert reconciler is not None
        first = reconciler.state.position
        entries = self._store.entries(first, STEP)
        batches = self._batches(first, first + len(entries))
        held = next(batches, None)
        at = 0
        while at < len(entries):
            index, alike = first + at, run_of(entries, at)
            while held is not None and held[0] < index:
                held = next(batches, None)
            batch = held[1] if held is not None and held[0] == index else None
            try:
                if alike > 1:
                    reconciler.run(entries[at : at + alike])
                else:
                    reconciler.entry(entries[at], batch)
            except (LeafError, UnicodeDecodeError):
                # Not canonical, or of a newer program: `capsign audit verify` tells; to stop here
                # would leave everything after it unread.
                logs.error("reconcile.unreadable", leaf=index)
            at = reconciler.state.position - first
        return len(entries)

    def _batches(self, first: int, end: int) -> Iterator[tuple[int, bytes]]:
        while first < end:
            found = self._store.audit_batches("", first, BATCHES, end)
            yield from ((index, batch) for index, _, batch in found)
            if len(found) < BATCHES:
                return
            first = found[-1][0] + 1

    def _settle(self, reconciler: Reconciler, now_ms: int) -> None:
        """Write what changed, or now and then how far this came."""
        saved = self._saved
        assert saved is not None
        changes = reconciler.take_changes()
        moved = reconciler.state.position > saved.position
        is_due = not self._saved_ms <= now_ms < self._saved_ms + SAVE_MS
        if not changes and not (moved and is_due):
            return
        digest = self._policy_digest()
        told = tuple((one, one.incident.entry(one.state, now_ms, digest)) for one in changes)
        fresh = {one.incident.key for one in changes}
        before = {row.incident.key: row.incident for row in saved.rows}
        grown = tuple(
            one
            for one in reconciler.standing
            if one.key not in fresh and before.get(one.key, one) != one
        )
        state = msgspec.msgpack.encode(reconciler.state)
        progress = Progress(reconciler.state.position, state, told, grown)
        if not self._store.settle_incidents(saved, progress, now_ms):
            self._forget()
            return
        rows = tuple(IncidentRow(one, 0) for one in reconciler.standing)
        self._saved = Reconciliation(saved.revision + 1, progress.position, b"", rows)
        self._saved_ms = now_ms
        for change in changes:
            self._tell(change)

    def _tell(self, change: Change) -> None:
        one = change.incident
        event = "incident.found" if change.state is IncidentState.FOUND else "incident.ended"
        what: dict[str, logs.Attribute] = {
            "kind": one.kind.name.lower().replace("_", "-"),
            "workload": one.workload,
            "boot": one.boot_id.hex(),
            "digest": one.digest.hex(),
            "leaf": one.leaf_index_plus_one - 1,
            "count": one.count,
        }
        (logs.warning if change.state is IncidentState.FOUND else logs.event)(event, **what)
        self._found(change)

    def _entry_at(self, index: int) -> bytes | None:
        found = self._store.entries(index, 1)
        return found[0] if found else None

    def _forget(self) -> None:
        self._reconciler = self._saved = None
        self.position = self.untold = self.unjudged = 0


def _decoded(state: bytes) -> State:
    """What was remembered; from the beginning if an older or a newer program wrote it."""
    if not state:
        return State()
    try:
        return msgspec.msgpack.decode(state, type=State)
    except msgspec.ValidationError:
        logs.warning("reconcile.begins_anew")
        return State()
