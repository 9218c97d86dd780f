"""One look of a replica: sees what it can see, reports what is its own, and settles with the store
what differs by now.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from capsign_evidence.drift_leaf import Drifted, DriftKind, digest_of, named
from capsign_evidence.leaf_kinds import Act
from capsign_wire import logs

from capsign_adapter.decide import drift
from capsign_adapter.drift.key_checks import KeyChecks
from capsign_adapter.drift.own_look import Own
from capsign_adapter.drift.token_look import TokenView, confirmed
from capsign_adapter.model.drift import LIVE_MS, Difference, DriftRow, DriftState, ReplicaReport
from capsign_adapter.sign.failures import failure_of
from capsign_adapter.sign.key_uses import KeyUseCounter
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.store.interfaces.authorities import Authorities
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.drift import Drift, KeyUses
from capsign_adapter.store.interfaces.erasures import Erasures
from capsign_adapter.store.interfaces.key_versions import KeyClaims, KeyVersions
from capsign_adapter.token.interface import Token, TokenError

OF_TOKEN = frozenset(
    {
        DriftKind.MECHANISM,
        DriftKind.KEY_ATTRIBUTE,
        DriftKind.MISSING_OBJECT,
        DriftKind.UNKNOWN_OBJECT,
    }
)
"""Kinds that the token must be asked for."""

MAX_OWN = 128
"""Most differences that a replica reports of itself."""

TRIES = 3
"""How often a look is taken anew because another replica wrote meanwhile; then the ticker does."""


class DriftStore(
    Erasures, Drift, KeyUses, ControlState, KeyVersions, KeyClaims, Authorities, Protocol
):
    """The parts of the store that a look reads and writes."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Milliseconds since 1970; the pause between two looks at something that may be in the making;
    who is told of what is new.
    """

    now_ms: Callable[[], int]
    pause: Callable[[], None]
    found: Callable[[Difference], None] = lambda _: None


class Watch:
    """Of one replica. Any thread may call `look`; they take turns."""

    def __init__(
        self,
        token: Token,
        store: DriftStore,
        snapshots: Snapshots,
        identity: ReplicaReport,
        own: Callable[[bool], Own],
        uses: KeyUseCounter,
        outside: Outside,
    ) -> None:
        """`identity` is the report without what changes, `own` looks at what only this replica can
        see; True: thoroughly.
        """
        self._token = token
        self._store = store
        self._snapshots = snapshots
        self._identity = identity
        self._own = own
        self._uses = uses
        self._outside = outside
        self._checks = KeyChecks()
        self._turn = threading.Lock()
        self.token_view: TokenView | None = None
        """What the last look saw of the token; None: nothing yet."""
        self.state = DriftState(0, (), ())
        """What the store knew after the last look."""
        self.token_seen = False
        """Whether the token answered at the last look."""
        self.looked_ms = 0
        """When that was, milliseconds since 1970; 0: never."""

    def look(self, *, thorough: bool = False) -> bool:
        """Look once; `thorough`: somebody waits for it. Returns whether to look again at once:
        others wrote meanwhile. Raises what the store raises; a token that gives no answer leaves
        its part as it was.
        """
        with self._turn:
            self._write_uses()
            return not any(self._settled(thorough) for _ in range(TRIES))

    def end(self) -> None:
        """This replica stops: what it saw of itself is nobody's any more."""
        with self._turn:
            self._write_uses()
            self._store.end_report(self._identity.replica)

    def _settled(self, thorough: bool) -> bool:
        """Returns whether the store has what this look saw."""
        state, now_ms = self._store.drift(), self._outside.now_ms()
        observed, found = self._seen(state, now_ms, thorough)
        fresh, gone = drift.moved(state.rows, drift.bounded(found), observed)
        if fresh or gone:
            digest = self._snapshots.policy().digest
            entry = Entries(digest, now_ms)
            if not self._store.settle_drift(state.revision, fresh, gone, entry, now_ms):
                return False
            self._tell(fresh, gone)
        self.state, self.looked_ms = self._store.drift(), now_ms
        return True

    def _seen(
        self, state: DriftState, now_ms: int, thorough: bool
    ) -> tuple[frozenset[DriftKind], list[Difference]]:
        """Which kinds could be observed, and what differs."""
        snapshot = self._snapshots.refresh()
        mine = self._report(now_ms, thorough)
        others = [
            one for one in state.reports if one.replica != mine.replica and one.is_live(now_ms)
        ]
        found = list(drift.of_replicas(snapshot.policy, [mine, *others]))
        rows = [row for rows in snapshot.known().values() for row in rows]
        found += drift.of_cryptoperiods(snapshot.policy, rows, now_ms)
        view = self._token_seen(state)
        if view is None:
            return frozenset(DriftKind) - OF_TOKEN, found
        return frozenset(DriftKind), [*found, *view.differences]

    def _report(self, now_ms: int, thorough: bool) -> ReplicaReport:
        own = self._own(thorough)
        report = replace(
            self._identity,
            seen_ms=now_ms,
            policy_file=own.policy_file,
            own=drift.bounded(own.differences)[:MAX_OWN],
        )
        self._store.report_replica(report, now_ms - LIVE_MS)
        return report

    def _token_seen(self, state: DriftState) -> TokenView | None:
        known = frozenset(row.difference for row in state.rows)
        try:
            self.token_view = confirmed(
                self._token,
                self._store,
                lambda: self._snapshots.policy().tenants,
                self._checks,
                known,
                self._outside.pause,
            )
        except TokenError as error:
            logs.warning("drift.token_unseen", reason=failure_of(error).row.name)
            self.token_seen = False
            return None
        self.token_seen = True
        return self.token_view

    def _tell(self, fresh: Iterable[Difference], gone: Iterable[DriftRow]) -> None:
        for one in fresh:
            logs.warning("drift.found", kind=one.kind.name, subject=one.subject, aspect=one.aspect)
            self._outside.found(one)
        for row in gone:
            one = row.difference
            logs.event("drift.gone", kind=one.kind.name, subject=one.subject, aspect=one.aspect)

    def _write_uses(self) -> None:
        taken = self._uses.take()
        if not taken:
            return
        try:
            self._store.add_key_uses(taken)
        except BaseException:
            self._uses.add(taken)
            raise


@dataclass(frozen=True, slots=True)
class Entries:
    """Makes the entry of a difference: see `store.interfaces.drift.Entry`."""

    policy_digest: bytes
    now_ms: int

    def __call__(self, one: Difference, since_ms: int, there: bool) -> bytes:
        act = Act.DRIFT_GONE
        if there:
            unknown = one.kind is DriftKind.UNKNOWN_OBJECT
            act = Act.UNKNOWN_OBJECT if unknown else Act.DRIFT_FOUND
        return Drifted(
            self.now_ms,
            self.policy_digest,
            act,
            one.kind,
            named(one.subject),
            one.aspect,
            digest_of(one.kind, one.subject, one.aspect, one.expected, one.found),
            since_ms,
        ).encode()
