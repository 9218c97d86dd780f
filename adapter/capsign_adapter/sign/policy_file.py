"""The file that a replica has as its policy: a change of it is proposed, and a difference from what
is in force is told. It is never decided by.

In a cluster the file is a ConfigMap, which reaches each replica at its own time, and which a
replica may find in an older form than its neighbour. So a replica proposes what has changed before
its own eyes, or what the store has never seen; what the store knows already and is not in force
stays a difference until somebody ends it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.policy_shape import MAX_BYTES
from capsign_adapter.decide.policy_versions import file_identity
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.policy_versions import PolicyVersions
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.store.interfaces.policies import Policies

LOOK_S = 2.0
"""Between looks at the file, seconds."""

SETTLES_MS = 600_000
"""How long a ConfigMap may take to reach every replica: what one of them proposed in this time is
not proposed again by another.
"""


class PolicyFile:
    """Of one replica; `look` is for one thread."""

    def __init__(
        self, path: Path, store: Policies, snapshots: Snapshots, versions: PolicyVersions
    ) -> None:
        self._path = path
        self._store = store
        self._snapshots = snapshots
        self._versions = versions
        self._told: tuple[bytes, int] | None = None
        self.digest = b""
        """SHA-256 of the file as it was last seen; empty: it could not be read."""

    @property
    def differs(self) -> bool:
        """Whether it is another document than the one in force, or cannot be read."""
        return self.digest != self._snapshots.policy().digest

    def look(self) -> None:
        """Propose the file if it has changed, and say once that it differs. Raises what the store
        raises; then the next look does it.
        """
        data = self._read()
        if data is None:
            self.digest = b""
            return
        digest, before = hashlib.sha256(data).digest(), self.digest
        if digest != self._snapshots.policy().digest and self._is_news(digest, before):
            self._propose(data)
        self.digest = digest
        self._tell()

    def _read(self) -> bytes | None:
        try:
            with self._path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except OSError:
            return None

    def _is_news(self, digest: bytes, before: bytes) -> bool:
        """Whether it is to be proposed: see the module."""
        if digest == before:
            return False
        mine = file_identity(self._snapshots.policy().trust_domain)
        rows = [row for row in self._store.policy_versions() if row.digest == digest]
        since = now_ms() - SETTLES_MS
        if any(row.proposer == mine and row.proposed_ms > since for row in rows):
            return False
        return bool(before) or not rows

    def _propose(self, data: bytes) -> None:
        actor = file_identity(self._snapshots.policy().trust_domain)
        try:
            outcome = self._versions.propose(actor, data)
        except FailureError as error:
            if error.outcome != failures_pb2.OUTCOME_REFUSED:
                raise
            logs.error("policy.file_refused", reason=error.row.name, detail=error.detail)
            return
        logs.event("policy.file_changed", version=outcome.row.version, waits=bool(outcome.proposal))

    def _tell(self) -> None:
        """Once for each file and version in force, to the log of the process; the evidence has it
        as drift.
        """
        snapshot = self._snapshots.refresh()
        now = (self.digest, snapshot.policy_version)
        if self.digest == snapshot.policy.digest or self._told == now:
            return
        self._told = now
        logs.warning("policy.file_differs", version=snapshot.policy_version)
