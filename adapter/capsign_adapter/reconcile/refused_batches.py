"""Batches that were not taken because they do not follow: an incident, since the agent cannot go on
with that life, and nothing of it will stand in the log.
"""

from __future__ import annotations

from capsign_evidence.incident_leaf import IncidentKind, IncidentState
from capsign_evidence.reconcile.incidents import Incident, IncidentKey
from capsign_wire import logs

from capsign_adapter.model.evidence import AuditDraft
from capsign_adapter.store.interfaces.reconciliation import ReconciliationStore

MAX_REMEMBERED = 4096
"""Incidents that need not be looked up again: an agent repeats its batch every half a minute."""


class RefusedBatches:
    """Of one replica. Any thread may call it: the worst is a look too many."""

    def __init__(self, store: ReconciliationStore) -> None:
        self._store = store
        self._remembered: dict[IncidentKey, None] = {}

    def refused(
        self, draft: AuditDraft, accepted_through: int, policy_digest: bytes, now_ms: int
    ) -> None:
        """A batch did not follow record `accepted_through` of its life. Raises what the store
        raises.
        """
        one = incident_of(draft, accepted_through, now_ms)
        if one.key in self._remembered:
            return
        entry = one.entry(IncidentState.FOUND, now_ms, policy_digest)
        if self._store.file_incident(one, entry, now_ms):
            kind = one.kind.name.lower().replace("_", "-")
            logs.warning("incident.found", kind=kind, workload=one.workload, boot=one.boot_id.hex())
        while len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)), None)
        self._remembered[one.key] = None


def incident_of(draft: AuditDraft, accepted_through: int, now_ms: int) -> Incident:
    """Records are missing before it, or it tells another story than the batches before."""
    first, last, digest = draft.first_sequence, draft.last_sequence, draft.batch_hash
    kind = IncidentKind.FORGED_CHAIN
    if first > accepted_through + 1:
        kind, first, last, digest = IncidentKind.GAP, accepted_through + 1, first - 1, b""
    return Incident(
        kind,
        draft.workload,
        draft.boot_id,
        digest,
        b"",
        0,
        first,
        last,
        min(last - first + 1, 0xFFFFFFFF),
        now_ms,
    )
