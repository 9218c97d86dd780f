"""The evidence log at the listener for verifiers, as C2SP tlog-tiles: `/checkpoint`,
`/tile/<l>/<n>[.p/<w>]`, `/tile/entries/<n>[.p/<w>]`, and ours, `/capsign/batches/<n>[.p/<w>]`.

Nothing beyond the last checkpoint is served, so all of it is signed for.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from enum import Enum

from capsign_evidence.tiles import FileKind, TileName, parse_path, width_at
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.peer import Peer
from capsign_adapter.front.evidence_servicer import READERS
from capsign_adapter.front.public_answers import Answer, Question
from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.log_files import LogStore, log_file

CHECKPOINT = "/checkpoint"

BATCH_BYTES = 8 * 1024 * 1024
"""Most bytes of the agents' batches in one answer; who needs more asks by gRPC."""

GZIP_LEVEL = 3
"""Of entries: names repeat in them, and what does not is random."""

_FOR_EVER = "max-age=31536000, immutable"


class Exposure(Enum):
    """Who may fetch what."""

    OFF = "off"
    """Nobody anything."""
    HASHES = "hashes"
    """Anybody the checkpoint and hashes; nobody entries."""
    READERS = "readers"
    """The same, and READERS with their certificate entries and batches."""
    EVERYTHING = "everything"
    """Anybody everything."""


class LogRoutes:
    """Answers from the store. Safe for any thread."""

    def __init__(
        self,
        store: LogStore,
        published: Callable[[], Checkpoint | None],
        standing: Callable[[], Standing],
        exposure: Exposure,
    ) -> None:
        """`published` gives the last checkpoint that may be shown."""
        self._store = store
        self._published = published
        self._standing = standing
        self._exposure = exposure

    def serves(self, path: str) -> bool:
        """Whether this path is of the log."""
        shown = self._exposure is not Exposure.OFF
        return shown and (path == CHECKPOINT or path.startswith(("/tile/", "/capsign/batches/")))

    def reader(self, peer: Peer | None) -> bool:
        """Whether this peer has a role that may read entries, and a certificate that is good
        now.
        """
        if peer is None or not self._standing().roles_of(peer.spiffe_id) & READERS:
            return False
        peer.still_valid(now_ms())
        return True

    def answer(self, question: Question) -> Answer:
        """The answer. Raises FailureError, and what the store raises."""
        checkpoint = self._published()
        if checkpoint is None:
            raise _absent("There is no checkpoint yet.")
        if question.path == CHECKPOINT:
            headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
            return Answer(200, checkpoint.note, headers)
        found = parse_path(question.path.removeprefix("/"))
        if found is None:
            raise _absent("This is no path of C2SP tlog-tiles.")
        kind, tile = found
        private = self._demand_allowed(kind, question)
        if width_at(tile.level, tile.index, checkpoint.tree_size) < tile.width:
            raise _absent("The last checkpoint does not cover this.")
        return self._file(kind, tile, question, private=private)

    def _demand_allowed(self, kind: FileKind, question: Question) -> bool:
        """Whether the answer is for this peer alone. Raises FailureError ROLE_MISSING."""
        if kind is FileKind.HASHES or self._exposure is Exposure.EVERYTHING:
            return False
        if self._exposure is Exposure.READERS and self.reader(question.peer):
            return True
        raise FailureError(
            failures_pb2.REASON_ROLE_MISSING,
            "Entries name workloads: they are for auditors, responders and operators, with their "
            "certificate.",
        )

    def _file(self, kind: FileKind, tile: TileName, question: Question, *, private: bool) -> Answer:
        body = log_file(self._store, kind, tile, BATCH_BYTES)
        if kind is FileKind.BATCHES and not body:
            raise _absent("There are no batches among these leaves.")
        tag = hashlib.sha256(body).hexdigest()[:32]
        headers = {
            "Content-Type": "application/octet-stream",
            "Cache-Control": f"{'private' if private else 'public'}, {_FOR_EVER}",
        }
        if kind is not FileKind.HASHES:
            headers["Vary"] = "Accept-Encoding"
            if question.takes_gzip:
                headers["Content-Encoding"], tag = "gzip", f"{tag}-gzip"
                body = gzip.compress(body, GZIP_LEVEL, mtime=0)
        headers["ETag"] = f'"{tag}"'
        return Answer(200, body, headers).unless_known(question)


def _absent(text: str) -> FailureError:
    return FailureError(failures_pb2.REASON_NOT_FOUND, text)
