"""The state that decisions depend on: policy, revocations, key versions and rollouts at one epoch.
It is replaced as a whole when the epoch moves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from capsign_wire.key_states import SIGNS

from capsign_adapter.decide import jwks
from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.revoked import RevocationIndex
from capsign_adapter.model.control import Revocation
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.rollouts import RolloutRow
from capsign_adapter.sign import policy_in_force
from capsign_adapter.sign.policy_in_force import InForce
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.erasures import Erasures
from capsign_adapter.store.interfaces.key_versions import KeyVersions
from capsign_adapter.store.interfaces.policies import Policies
from capsign_adapter.store.interfaces.rollouts import Rollouts


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable; a decision uses one from beginning to end, and the commit checks that its epoch
    still holds (I6).
    """

    epoch: int
    policy: Policy
    policy_version: int
    revoked: RevocationIndex
    versions: dict[tuple[str, str], tuple[KeyVersionRow, ...]]
    """Versions that are not revoked, newest first, by tenant and key."""
    rollouts: dict[tuple[str, str], RolloutRow] = field(default_factory=dict)
    """Those under way, by tenant and key."""
    settled: dict[tuple[str, str], int] = field(default_factory=dict)
    """The algorithm that the last finished change of algorithm of a key led to."""
    revoked_versions: dict[tuple[str, str], tuple[KeyVersionRow, ...]] = field(default_factory=dict)
    """Versions that are revoked, one by one; what is in neither does not exist."""

    def known(self) -> dict[tuple[str, str], tuple[KeyVersionRow, ...]]:
        """Returns all versions of all keys, newest first."""
        names = self.versions.keys() | self.revoked_versions.keys()
        return {
            name: tuple(
                sorted(
                    (*self.versions.get(name, ()), *self.revoked_versions.get(name, ())),
                    key=lambda row: -row.version,
                )
            )
            for name in sorted(names)
        }

    def withdrawn(self, tenant: str, key: str, algorithm: int) -> Revocation | None:
        """Returns the revocation of the newest version that would sign with this algorithm if it
        were not revoked, or None.
        """
        for row in self.revoked_versions.get((tenant, key), ()):
            if row.state in SIGNS and algorithm in row.algorithms:
                return self.revoked.of_version(tenant, key, row.version)
        return None

    def kept_s(self, tenant: str, key: str) -> int:
        """Returns for how long the public keys of a key may be kept, seconds."""
        return jwks.kept_s(self.policy, self.rollouts.get((tenant, key)))

    def verifiable(self, tenant: str, key: str, algorithm: int) -> list[KeyVersionRow]:
        """Returns the versions that verifiers should know: those that sign first, newest first."""
        return jwks.shown(self.versions.get((tenant, key), ()), algorithm)


TURN_S = 10.0
"""Longest wait for another thread that reads a new snapshot, seconds."""


class Decisive(ControlState, KeyVersions, Erasures, Policies, Rollouts, Protocol):
    """What decisions are made under, as the store has it."""


class Snapshots:
    """Holds the current snapshot and reads a new one when told that the epoch moved."""

    def __init__(
        self,
        store: Decisive,
        on_move: Callable[[Snapshot], None] = lambda _: None,
        yielded: Callable[[], AbstractContextManager[object]] = nullcontext,
        known: InForce | None = None,
        turn_s: float = TURN_S,
    ) -> None:
        """`on_move` gets each new snapshot before it is used. `yielded` is entered while another
        thread that reads one is waited for. `known` is a policy that needs no parsing if it is the
        one in force. `turn_s`: longest wait for that thread, seconds.
        """
        self._in_force = known
        self._turn_s = turn_s
        self._yielded = yielded
        self._store = store
        self._on_move = on_move
        self._moving = threading.Lock()
        self._current = self._read()

    @property
    def current(self) -> Snapshot:
        return self._current

    def policy(self) -> Policy:
        """The policy of the current snapshot."""
        return self._current.policy

    def standing(self) -> Standing:
        """Who may do what by the epoch now. Raises as `refresh`."""
        snapshot = self.refresh()
        return Standing(snapshot.policy, snapshot.revoked)

    def standing_known(self) -> Standing:
        """The same by the current snapshot, without a look at the store."""
        return Standing(self._current.policy, self._current.revoked)

    def refresh(self) -> Snapshot:
        """The snapshot of the epoch now; calls `on_move` first if it is another one, so that caches
        empty before it is used.

        Raises what the store raises, and StoreUnavailableError if another thread takes too long to
        read the new one: a store that hangs keeps each caller for its own wait, not for those of
        all who came before.
        """
        known = self._current
        if self._store.control().revocation_epoch == known.epoch:
            return known
        with self._yielded():
            return self._moved()

    def _moved(self) -> Snapshot:
        if not self._moving.acquire(timeout=self._turn_s):
            raise StoreUnavailableError(
                f"The store has not told the new revocations for {self._turn_s:g} s."
            )
        try:
            if self._store.control().revocation_epoch != self._current.epoch:
                fresh = self._read()
                self._on_move(fresh)
                self._current = fresh
            return self._current
        finally:
            self._moving.release()

    def _read(self) -> Snapshot:
        # Several reads: if the epoch moves between them the snapshot is older than the rest, and a
        # commit under it is refused.
        epoch, revocations = self._store.revocations()
        revoked = RevocationIndex(epoch, revocations, self._store.erasures())
        good: list[KeyVersionRow] = []
        withdrawn: list[KeyVersionRow] = []
        for row in self._store.key_versions():
            gone = revoked.of_version(row.tenant, row.key, row.version) is not None
            (withdrawn if gone else good).append(row)
        self._in_force = in_force = policy_in_force.read(self._store, self._in_force)
        rollouts, settled = _by_key(self._store.rollouts_in_force())
        return Snapshot(
            epoch,
            in_force.policy,
            in_force.version,
            revoked,
            _newest_first(good),
            rollouts,
            settled,
            _newest_first(withdrawn),
        )


def _newest_first(
    rows: Iterable[KeyVersionRow],
) -> dict[tuple[str, str], tuple[KeyVersionRow, ...]]:
    """Returns the rows by tenant and key."""
    found: dict[tuple[str, str], list[KeyVersionRow]] = {}
    for row in sorted(rows, key=lambda row: -row.version):
        found.setdefault((row.tenant, row.key), []).append(row)
    return {name: tuple(some) for name, some in found.items()}


def _by_key(
    rows: list[RolloutRow],
) -> tuple[dict[tuple[str, str], RolloutRow], dict[tuple[str, str], int]]:
    """What is under way, and the algorithm that the last one that is done led to."""
    under_way = {(row.tenant, row.key): row for row in rows if not row.is_final}
    settled = {(row.tenant, row.key): row.after.algorithm for row in rows if row.is_final}
    return under_way, settled
