"""What people do to key versions: each act under the table, with its leaf, and in force when it
returns.

A version is moved as it was seen: of two who move it at once, on whatever replicas, one is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from capsign_evidence.leaf_kinds import Act
from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.custody.destroying import ACT, Pending, payload_of
from capsign_adapter.custody.making import Author, KeyStore, clock_of, make_version
from capsign_adapter.decide import key_acts
from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.policy import Key, Policy
from capsign_adapter.decide.readiness import demand_ready
from capsign_adapter.decide.revoked import revoked_failure
from capsign_adapter.keys import labels, provision
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import KeyEvent
from capsign_adapter.model.proposals import ProposalRow
from capsign_adapter.sign.epoch_follower import EpochFollower
from capsign_adapter.sign.refused_moves import RefusedMoves
from capsign_adapter.store.interfaces.key_readers import KeyReaders
from capsign_adapter.store.interfaces.proposals import Proposals
from capsign_adapter.token.interface import Token

Propose = Callable[[str, int, str, bytes], ProposalRow]
"""`Approvals.propose`: actor, act, target and payload."""

_FIRST_USES = frozenset({KeyEvent.PUBLISH, KeyEvent.ACTIVATE})
"""What nobody does to a version that is about to be destroyed."""


class Done(NamedTuple):
    """The version as it is now, the epoch from which that holds, and the leaf of the act."""

    row: KeyVersionRow
    epoch: int
    leaf_index: int


class ActsStore(KeyStore, KeyReaders, Proposals, Protocol):
    """What is asked of the store here."""


class KeyActs:
    """Of one replica. Any thread may call any method."""

    def __init__(
        self,
        standing: Callable[[], Standing],
        token: Token,
        store: ActsStore,
        epochs: EpochFollower,
        refused: RefusedMoves,
        clock: Callable[[], int],
    ) -> None:
        self._standing = standing
        self._token = token
        self._store = store
        self._epochs = epochs
        self._refused = refused
        self._clock = clock
        self.pending = Pending(store)

    def rows_of(self, tenant: str, key: str) -> list[KeyVersionRow]:
        """Returns the versions of a key, newest first, as the store has them now."""
        rows = [row for row in self._store.key_versions() if (row.tenant, row.key) == (tenant, key)]
        return sorted(rows, key=lambda row: -row.version)

    def make(self, actor: str, tenant: str, key: str, newest: int) -> Done:
        """Make a version after the version `newest`, or with 0 the first one, which signs at once.

        Raises FailureError ROLE_MISSING, TENANT_ERASED, NOT_FOUND if policy has no such key,
        ILLEGAL_TRANSITION, and as `make_version`.
        """
        standing = self._standing()
        with self._recorded(actor, tenant, key):
            standing.demand(actor, key_acts.MAKING)
        erased = standing.revoked.of_erased(tenant)
        if erased is not None:
            raise revoked_failure(erased)
        wanted = _in_policy(standing.policy, tenant, key)
        author, now = Author(actor, standing.policy.digest), clock_of(self._store, self._clock)
        # policy has the key, so that its name may be told though there may be no version yet
        with self._refused.recorded(actor, Act.KEY_MOVE_REFUSED, f"{tenant}/{key}"):
            key_acts.demand_newest(self.rows_of(tenant, key), f"{tenant}/{key}", newest)
            if not newest:
                self._pepper_for(tenant)
            row, epoch, index = make_version(
                wanted, self._token, self._store, author, now, newest=newest
            )
        self._epochs.look()
        return Done(row, epoch, index)

    def move(self, actor: str, tenant: str, key: str, version: int, event: KeyEvent) -> Done:
        """Move a version on by an act of one person (`decide.key_acts.RULES`).

        Raises FailureError ROLE_MISSING, NOT_FOUND, ILLEGAL_TRANSITION, KEY_DESTROY_PENDING,
        VERIFIERS_NOT_READY;
        COMMIT_UNKNOWN if it is recorded and may not be in force everywhere yet.
        """
        standing, rule = self._standing(), key_acts.RULES[event]
        with self._recorded(actor, tenant, key, version):
            standing.demand(actor, rule.roles)
        row = self.found(tenant, key, version)
        author, now = Author(actor, standing.policy.digest), clock_of(self._store, self._clock)
        if event in _FIRST_USES:
            self.pending.demand_none(row)
        with self._recorded(actor, tenant, key, version):
            if event is KeyEvent.ACTIVATE:
                self._demand_ready(standing.policy, row, now)
            epoch, index = self._store.move_key_version(
                row, event, lambda epoch: author.entry(rule.act, row.name, now, epoch), now
            )
        logs.event(f"key.{event.value}", tenant=tenant, key=key, version=version)
        if rule.withdraws:
            self._epochs.enforce(epoch)
        else:
            self._epochs.look()
        return Done(self.found(tenant, key, version), epoch, index)

    def destroy(
        self, actor: str, tenant: str, key: str, version: int, propose: Propose
    ) -> ProposalRow:
        """Proposes the destruction of a version. Raises FailureError ROLE_MISSING, NOT_FOUND,
        ILLEGAL_TRANSITION, OVERLOADED if too many proposals wait.
        """
        row = self.found(tenant, key, version)
        with self._recorded(actor, tenant, key, version):
            return propose(actor, ACT, row.name, payload_of(row))

    def found(self, tenant: str, key: str, version: int) -> KeyVersionRow:
        """Returns the version of that number. Raises FailureError NOT_FOUND."""
        for row in self.rows_of(tenant, key):
            if row.version == version:
                return row
        detail = f"There is no version {version} of a key {tenant}/{key}."
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="version")

    def _pepper_for(self, tenant: str) -> None:
        """A tenant that policy has got since the adapters started has no pepper yet."""
        label = labels.pepper(tenant)
        held = self._token.labels()
        if label in held:
            return
        known = any(row.tenant == tenant for row in self._store.key_versions())
        if known or labels.has_versions_of(tenant, held):
            where = "the store knows" if known else "the token holds, or held"
            detail = f"The token has no pepper for the tenant {tenant}, whose keys {where}."
            raise FailureError(failures_pb2.REASON_TOKEN_UNAVAILABLE, detail)
        provision.make_pepper(self._token, tenant)
        logs.event("pepper.created", tenant=tenant)

    def _demand_ready(self, policy: Policy, row: KeyVersionRow, now_ms: int) -> None:
        readers = self._store.key_readers(row.tenant, row.key)
        demand_ready(policy, self.rows_of(row.tenant, row.key), row, readers, now_ms)

    def _recorded(
        self, actor: str, tenant: str, key: str, version: int = 0
    ) -> AbstractContextManager[None]:
        act = Act.KEY_MOVE_REFUSED
        return self._refused.recorded_of_key(actor, act, tenant, key, version)


def _in_policy(policy: Policy, tenant: str, key: str) -> Key:
    found = policy.key(tenant, key)
    if found is None:
        detail = f"The policy in force has no key {tenant}/{key}."
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="key")
    return found
