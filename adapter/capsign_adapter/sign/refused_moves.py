"""Records moves that are refused, and who asked for them: those that a table of `model.lifecycle`
does not have (I7), and those that are not this person's to make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act
from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.rate import Buckets
from capsign_adapter.store.interfaces.evidence import EvidenceLog
from capsign_adapter.store.interfaces.key_versions import KeyVersions

PER_SECOND, AT_ONCE = 1, 60
"""Leaves of one identity on one replica; what is above is refused without one."""

RECORDED = frozenset(
    {
        failures_pb2.REASON_ROLE_MISSING,
        failures_pb2.REASON_SAME_PERSON,
        failures_pb2.REASON_APPROVAL_REQUIRED,
        failures_pb2.REASON_PROPOSAL_CHANGED,
        failures_pb2.REASON_ILLEGAL_TRANSITION,
        failures_pb2.REASON_ROLLOUT_CONFLICT,
        failures_pb2.REASON_ROLLOUT_OVERTAKEN,
        failures_pb2.REASON_VERIFIERS_NOT_READY,
    }
)
"""Reasons that say that what was asked is not possible in the state that was found, or not for
whoever asked: an approval of one's own proposal, or one with another digest than is shown.
"""


NOTHING = "*"
"""The target of a move of what is not there."""


class EvidenceAndKeys(EvidenceLog, KeyVersions, Protocol):
    """The parts of the store that this needs."""


class RefusedMoves:
    """Of one replica; any thread."""

    def __init__(
        self,
        store: EvidenceAndKeys,
        policy_digest: Callable[[], bytes],
        rates: Buckets,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._policy_digest = policy_digest
        self._rates = rates
        self._now_ms = now_ms

    @contextmanager
    def recorded(self, actor: str, act: Act, target: str) -> Iterator[None]:
        """Around a move that `actor` (SPIFFE ID) asks for: if it is refused (RECORDED), the log has
        an administrative entry of `act` on `target` before the refusal goes on.
        """
        try:
            yield
        except FailureError as error:
            if error.reason in RECORDED:
                self._record(actor, act, target, error.row.name)
            raise

    @contextmanager
    def recorded_of_key(
        self, actor: str, act: Act, tenant: str, key: str, version: int = 0
    ) -> Iterator[None]:
        """The same around a move of a key, or of a version. A name that no key has is in nobody's
        log, whoever asked for it (I9): the entry has `*` in its place.
        """
        try:
            yield
        except FailureError as error:
            if error.reason in RECORDED:
                self._record(actor, act, self._named(tenant, key, version), error.row.name)
            raise

    def _named(self, tenant: str, key: str, version: int) -> str:
        made = [
            row.version
            for row in self._store.key_versions()
            if (row.tenant, row.key) == (tenant, key)
        ]
        if not made:
            return NOTHING
        return f"{tenant}/{key}/{version}" if version in made else f"{tenant}/{key}"

    def _record(self, actor: str, act: Act, target: str, reason: str) -> None:
        name = act.name.lower()
        logs.warning("move.refused", act=name, target=target, actor=actor, reason=reason)
        if self._rates.take(actor, "moves", PER_SECOND, AT_ONCE, 1).granted:
            now = self._now_ms()
            entry = leaf.admin(now, self._policy_digest(), act, actor, target, 0)
            self._store.append([entry], now)
