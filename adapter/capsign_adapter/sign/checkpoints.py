"""Signs checkpoints (C2SP tlog-checkpoint) with the log's keys.

Nobody gets a checkpoint before it is durable in the store and, where there is one, in the file
beside it; and none is signed that does not extend those before it:

1 what was shown last is read · 2 the tree is read, and must begin with that · 3 sign · 4 the store
has it · 5 the file has it · 6 it may be shown.
A crash between any two of them leaves a checkpoint that nobody has seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.proofs import TreeReader
from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.log_history import demand_extends
from capsign_adapter.keys.log_keys import LogKeys, demand_known
from capsign_adapter.model.evidence import Checkpoint, Contradiction
from capsign_adapter.sign.clock import monotonic_ms
from capsign_adapter.sign.published_file import PublishedFile
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.evidence import EvidenceLog
from capsign_adapter.token.interface import Token

TURN_S = 10.0
"""Longest wait for another thread that signs a checkpoint, seconds."""


class GrowingLog(ControlState, EvidenceLog, Protocol):
    """The parts of the store that checkpoints are made from."""


class Shown(Protocol):
    """Which of the signed checkpoints may be shown; see `witnesses`."""

    def last(self, signed: Checkpoint | None) -> Checkpoint | None:
        """The newest that may be shown, if there is one; `signed` is the last one signed."""

    def cosigned(self, checkpoint: Checkpoint) -> bool:
        """Whether as many witnesses have cosigned this one as must; False where none must."""

    def shown(self, signed: Callable[[], Checkpoint]) -> Checkpoint:
        """The newest that may be shown; `signed` makes one of the tree as it is. Raises
        FailureError.
        """

    def covering(self, leaf_index: int, signed: Callable[[], Checkpoint]) -> Checkpoint:
        """One that may be shown and whose tree holds this leaf; `signed` gives one that does.
        Raises FailureError.
        """


class Checkpoints:
    """Gives signed tree heads. Safe for any thread; one signs at a time."""

    def __init__(
        self,
        store: GrowingLog,
        token: Token,
        origin: str,
        yielded: Callable[[], AbstractContextManager[object]] = nullcontext,
        turn_s: float = TURN_S,
        remembered: Path | None = None,
        elapsed_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        """`yielded` is entered while one is made, and while another thread is waited for: `turn_s`
        seconds at most. `remembered` is the file of `PublishedFile`. `elapsed_ms` is monotonic:
        how long a caller has waited when his checkpoint is signed.

        Raises FailureError LOG_ROLLED_BACK if the log does not extend what was signed before,
        InventoryError if it was signed with a key that is missing now, and what token and store
        raise.
        """
        self._turn_s = turn_s
        self._elapsed_ms = elapsed_ms
        self._yielded = yielded
        self._store = store
        self.keys = LogKeys(token, origin)
        self._file = PublishedFile(remembered, self.keys.classic) if remembered else None
        self._signing = threading.Lock()
        self._latest = stored = store.latest_checkpoint()
        self._contradiction = ""
        self._contradicted_note = b""
        self._told: Callable[[], None] = lambda: None
        self._policy: Shown | None = None
        if stored is not None:
            demand_known(stored.note, quantum_safe=self.keys.quantum_safe is not None)
        self._extended()
        if stored is not None and self._file is not None:
            last = self._file.last()
            if last is None or last[1].size < stored.tree_size:
                # whoever signed it died before it was in the file: it is not shown, another is
                self._latest = None

    @property
    def verifier_key(self) -> str:
        """The C2SP signed-note verifier key with Ed25519, in text form."""
        return self.keys.classic.text()

    @property
    def verifier_keys(self) -> tuple[str, ...]:
        """The verifier keys of all signatures of ours, in text form."""
        return tuple(key.text() for key in self.keys.verifiers)

    @property
    def latest(self) -> Checkpoint | None:
        """The last one that was signed, durable; it may not be shown yet."""
        return self._latest

    def show_by(self, policy: Shown) -> None:
        """From now on `policy` says which checkpoints are given out."""
        self._policy = policy

    def tell_contradictions(self, told: Callable[[], None]) -> None:
        """`told` is called once, when the log contradicts what it has shown."""
        self._told = told

    def fault(self) -> str:
        """Name of the fault of a log that contradicts what it has shown, or an empty text."""
        return "log_rolled_back" if self._contradiction else ""

    def demand_unbroken(self) -> None:
        """Raise FailureError LOG_ROLLED_BACK while the log is known to contradict what it has
        shown: what is signed then would be recorded in the wrong history.
        """
        if self._contradiction:
            raise FailureError(failures_pb2.REASON_LOG_ROLLED_BACK, self._contradiction)

    def contradicted(self, error: FailureError) -> None:
        """Note that the log contradicts what it has shown: it signs no more until a restart."""
        if not self._contradiction:
            # each failure that is made of the sentence adds the advice again
            self._contradiction = error.detail.removesuffix(error.row.advice).strip()
            logs.error("log.rolled_back", detail=error.detail)
            self._told()

    def hold_against(self, head: TreeHead, note: bytes, where: str) -> None:
        """Hold the log against a tree that our keys signed and somebody else remembers, with that
        note; `where` says in words who. Raises FailureError LOG_ROLLED_BACK, and then signs no
        more.
        """
        size = self._store.control().tree_size
        try:
            self._demand_extends(where, note, head.size, head.root, size)
        except FailureError as error:
            self.contradicted(error)
            raise

    def current(self, now_ms: int) -> Checkpoint:
        """Returns the newest checkpoint that may be shown: of the tree as it is now, unless a
        policy demands cosignatures for that. Raises as `signed`.
        """
        if self._policy is not None:
            return self._in_file(self._policy.shown(lambda: self.signed(now_ms)))
        return self.signed(now_ms)

    def covering(self, leaf_index: int, now_ms: int) -> Checkpoint:
        """Returns a checkpoint that may be shown and whose tree holds this leaf. Raises as
        `signed`, and FailureError NOT_WITNESSED while there is none.
        """

        def signed() -> Checkpoint:
            latest = self._latest
            if latest is not None and latest.tree_size > leaf_index:
                return latest
            return self.signed(now_ms)

        if self._policy is not None:
            return self._in_file(self._policy.covering(leaf_index, signed))
        return signed()

    def stored(self) -> Checkpoint | None:
        """Returns the newest stored checkpoint that may be shown, if there is one. Nothing is
        signed for it. Raises FailureError LOG_ROLLED_BACK, and what the store raises.
        """
        found = self._store.latest_checkpoint()
        if self._policy is not None:
            found = self._policy.last(found)
        return self._in_file(found) if found is not None else None

    def witnessed(self) -> Checkpoint | None:
        """Returns the newest stored checkpoint that as many witnesses have cosigned as must, if
        there is one; None where none must. Raises as `stored`.
        """
        found = self.stored()
        if found is None or self._policy is None or not self._policy.cosigned(found):
            return None
        return found

    def _in_file(self, found: Checkpoint) -> Checkpoint:
        """Returns one that the store had, once the file has it or a larger one: whoever signed it
        may have died before, or keep another file. Raises FailureError.
        """
        last = self._file.last() if self._file is not None else None
        if self._file is None or (last is not None and _covers(last[1], found)):
            return found
        try:
            size, _ = self._extended()
            where = "the checkpoint that is to be shown"
            self._demand_extends(where, found.note, found.tree_size, found.root, size)
            self._file.remember(found.note)
        except FailureError as error:
            if error.reason == failures_pb2.REASON_LOG_ROLLED_BACK:
                self.contradicted(error)
            raise
        return found

    def signed(self, now_ms: int) -> Checkpoint:
        """Returns a signed checkpoint that covers the tree as it is now: the last one, if the tree
        did not grow. It is durable, and may not be shown yet.

        Raises what token and store raise, FailureError LOG_ROLLED_BACK, and OVERLOADED if another
        thread takes longer than `turn_s` to make one: while a token hangs, callers do not queue
        behind each other.
        """
        size = self._store.control().tree_size
        if (known := self._of(size)) is not None:
            return known
        with self._yielded():
            return self._made(now_ms)

    def _made(self, called_ms: int) -> Checkpoint:
        began_ms = self._elapsed_ms()

        def now_ms() -> int:
            """By the caller's clock, when it is asked."""
            return called_ms + self._elapsed_ms() - began_ms

        if not self._signing.acquire(timeout=self._turn_s):
            sentence = "The adapter's token or store takes too long to make a checkpoint."
            raise FailureError(failures_pb2.REASON_OVERLOADED, sentence, retry_after_ms=1000)
        try:
            # whoever held the lock may have made it
            return self._of(self._store.control().tree_size) or self._sign_one(now_ms)
        except FailureError as error:
            if error.reason == failures_pb2.REASON_LOG_ROLLED_BACK:
                self.contradicted(error)
                self._write_down(now_ms())
            raise
        finally:
            self._signing.release()

    def _write_down(self, now_ms: int) -> None:
        """Tell the other replicas, through the store, if a signed checkpoint shows the
        contradiction: each of them may know only checkpoints that the log extends. What this
        replica alone cannot read stops it alone.
        """
        if not self._contradicted_note:
            return
        found = Contradiction(self._contradiction, self._contradicted_note, now_ms)
        try:
            self._store.save_contradiction(found)
        except (StoreUnavailableError, CommitUnknownError) as error:
            logs.error("log.contradiction_not_kept", error)

    def _of(self, size: int) -> Checkpoint | None:
        """The last one, if it is of the tree of this size. A smaller tree was rolled back."""
        latest = self._latest
        return latest if latest is not None and latest.tree_size == size else None

    def _sign_one(self, now_ms: Callable[[], int]) -> Checkpoint:
        self.demand_unbroken()
        size, root = self._extended()
        before = [one.at_ms for one in (self._latest, self._store.latest_checkpoint()) if one]
        # of two statements the larger tree has the later time, whatever the clock does
        at_ms = max(now_ms(), *before, 0)
        note = self.keys.sign(size, root, at_ms // 1000)
        fresh = Checkpoint(size, root, note, at_ms)
        self._store.save_checkpoint(fresh)
        if self._file is not None:
            self._file.remember(note)
        self._latest = fresh
        return fresh

    def _extended(self) -> tuple[int, bytes]:
        """Size and root of the tree as it is now, which extends all that is known to have been
        shown. What was shown is read before the tree, which others make grow.
        """
        latest, stored = self._latest, self._store.latest_checkpoint()
        in_file = self._file.last() if self._file is not None else None
        found = self._store.contradiction()
        if found is not None:
            self._contradicted_note = found.note
            raise FailureError(failures_pb2.REASON_LOG_ROLLED_BACK, found.sentence)
        size = self._store.control().tree_size
        seen: dict[tuple[int, bytes], tuple[str, bytes]] = {}
        if in_file is not None:
            note, head = in_file
            seen[head.size, head.root] = "the checkpoint in the file beside the store", note
        if stored is not None:
            seen[stored.tree_size, stored.root] = "the checkpoint in the store", stored.note
        if latest is not None:
            where = "the checkpoint that was signed last"
            seen[latest.tree_size, latest.root] = where, latest.note
        for (leaves, root), (where, note) in seen.items():
            self._demand_extends(where, note, leaves, root, size)
        return size, self._root_of(size)

    def _demand_extends(self, where: str, note: bytes, leaves: int, root: bytes, size: int) -> None:
        """See `demand_extends`. The note of what it does not extend is kept for the others."""
        try:
            demand_extends(where, leaves, root, size, self._root_of)
        except FailureError:
            self._contradicted_note = self._contradicted_note or note
            raise

    def _root_of(self, leaves: int) -> bytes:
        return TreeReader(self._store.hashes, leaves).root()


def _covers(held: TreeHead, found: Checkpoint) -> bool:
    """Whether this is the same tree, or a larger one."""
    return held.size > found.tree_size or (held.size, held.root) == (found.tree_size, found.root)
