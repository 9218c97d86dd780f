"""Brings the candidate to one witness, from where that witness is, and believes of its answers what
is signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.cosignature import CosignerKey
from capsign_evidence.note import NoteError, NoteVerifier, SignatureLine, open_note
from capsign_evidence.proofs import TreeReader
from capsign_evidence.witness_protocol import (
    SIZE_TYPE,
    AddCheckpoint,
    read_answer,
    read_size,
)
from capsign_wire import logs
from capsign_wire.backoff import Backoff
from capsign_wire.failures import FailureError

from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.store.interfaces.evidence import EvidenceLog
from capsign_adapter.witnesses.client import NoAnswerError, Reply, WitnessClient
from capsign_adapter.witnesses.publication import Publication

TRIES = 3
"""Most requests for one candidate in one turn: the first, and from the size that a 409 names."""

BACKOFF = Backoff(1.0, 60.0)


class Outcome(StrEnum):
    """What came of a turn; values of the label `outcome`."""

    COSIGNED = "cosigned"
    OVERTAKEN = "overtaken"
    """It holds a larger tree of ours: another replica was before us."""
    REFUSED = "refused"
    """It does not know the log, or does not believe its signature, or answers nonsense."""
    INCONSISTENT = "inconsistent"
    """It says that the tree does not extend what it holds."""
    UNAVAILABLE = "unavailable"


class WitnessedLog(NamedTuple):
    """The log that is cosigned: its public keys, its store, and what holds a tree that its keys
    signed against that store and raises.
    """

    keys: Sequence[NoteVerifier]
    store: EvidenceLog
    hold_against: Callable[[TreeHead, bytes, str], None]


class Asking:
    """One witness at one URL, which may have several keys. For one thread."""

    def __init__(
        self,
        names: str,
        client: WitnessClient,
        keys: Sequence[CosignerKey],
        log: WitnessedLog,
        publication: Publication,
        clock_s: Callable[[], float],
        observe: Callable[[Outcome], None],
    ) -> None:
        """`names` are those of the policy, to be told; `clock_s` is monotonic."""
        self.names = names
        self._client, self._keys, self._log = client, keys, log
        self._publication = publication
        self._clock_s, self._observe = clock_s, observe
        self._size = 0
        self._done: Checkpoint | None = None
        self._failures = 0
        self._not_before_s = 0.0
        self._said = ""

    def look(self) -> None:
        """Take a turn, if there is a candidate that this witness has not cosigned and it is time.
        Raises what store and token raise.
        """
        if self._clock_s() < self._not_before_s:
            return
        candidate = self._publication.candidate()
        done = self._done
        if candidate is None or (
            done is not None
            and (done.tree_size, done.root) == (candidate.tree_size, candidate.root)
        ):
            return
        try:
            outcome, why = self._turn(candidate)
        except FailureError as error:
            # our store contradicts what it holds
            self._took(candidate, Outcome.INCONSISTENT, error.row.name)
            raise
        self._took(candidate, outcome, why)

    def _took(self, candidate: Checkpoint, outcome: Outcome, why: str) -> None:
        self._observe(outcome)
        good = outcome in (Outcome.COSIGNED, Outcome.OVERTAKEN)
        if good:
            self._done = candidate
        self._failures = 0 if good else self._failures + 1
        self._not_before_s = self._clock_s() + BACKOFF.delay_s(self._failures)
        self._tell(outcome, why, good=good)

    def remembered(self) -> int:
        """Hold what the witness remembers of this log against the store; returns its size, 0 if it
        shows nothing that our keys signed. Raises FailureError LOG_ROLLED_BACK if the store does
        not extend it, NoAnswerError.
        """
        note = self._client.checkpoint(self._log.keys[0].name)
        if note is None:
            return 0
        try:
            # our signature is enough: whoever shows it, we have made it
            text = open_note(note, self._log.keys).text
            head = TreeHead.parse(text)
        except NoteError as error:
            logs.warning("witness.unbelievable", witness=self.names, why=str(error))
            return 0
        if head.origin != self._log.keys[0].name:
            logs.warning("witness.unbelievable", witness=self.names, why="of another log")
            return 0
        self._log.hold_against(head, note, f"the checkpoint that the witness {self.names} holds")
        self._size = head.size
        return head.size

    def close(self) -> None:
        self._client.close()

    def _turn(self, candidate: Checkpoint) -> tuple[Outcome, str]:
        try:
            for _ in range(TRIES):
                if self._size > candidate.tree_size:
                    return self._larger(candidate)
                reply = self._client.add_checkpoint(self._request(candidate))
                if reply.status == 200:
                    return self._cosigned(candidate, reply)
                if reply.status != 409 or not self._moved(reply):
                    return self._refused(reply)
            return Outcome.REFUSED, "it names another size each time"
        except NoAnswerError as error:
            return Outcome.UNAVAILABLE, str(error)
        except NoteError as error:
            return Outcome.REFUSED, str(error)

    def _larger(self, candidate: Checkpoint) -> tuple[Outcome, str]:
        """It says that it holds a larger tree than the candidate's: believed if it shows it. What
        it shows may lag behind (C2SP tlog-witness lets it be cached): a size that we have signed is
        taken for the next candidate, and this one is not given up for it.
        """
        claimed = self._size
        shown = self.remembered()
        if shown <= candidate.tree_size:
            latest = self._log.store.latest_checkpoint()
            if latest is not None and claimed <= latest.tree_size:
                self._size = claimed
                return Outcome.OVERTAKEN, ""
            self._size = shown
            return Outcome.REFUSED, "it names a size that it does not show"
        self._publication.overtaken(shown)
        return Outcome.OVERTAKEN, ""

    def _request(self, candidate: Checkpoint) -> bytes:
        proof: list[bytes] = []
        if 0 < self._size < candidate.tree_size:
            reader = TreeReader(self._log.store.hashes, candidate.tree_size)
            proof = reader.consistency(self._size)
        return AddCheckpoint(self._size, tuple(proof), candidate.note).encode()

    def _cosigned(self, candidate: Checkpoint, reply: Reply) -> tuple[Outcome, str]:
        lines: list[SignatureLine] = read_answer(reply.body, candidate.note, self._keys)
        self._size = candidate.tree_size
        self._publication.add(candidate, lines)
        return Outcome.COSIGNED, ""

    def _moved(self, reply: Reply) -> bool:
        """Take the size that a 409 names; whether it is another one."""
        if reply.content_type != SIZE_TYPE:
            return False
        size = read_size(reply.body)
        moved, self._size = size != self._size, size
        return moved

    def _refused(self, reply: Reply) -> tuple[Outcome, str]:
        if reply.status == 422:
            # it lies, or our store is not the one whose tree it cosigned: the next line raises then
            self.remembered()
            return Outcome.INCONSISTENT, "status 422"
        kind = Outcome.UNAVAILABLE if reply.status >= 500 else Outcome.REFUSED
        return kind, f"status {reply.status}"

    def _tell(self, outcome: Outcome, why: str, *, good: bool) -> None:
        """Log each change once."""
        said = "" if good else f"{outcome} {why}"
        if said != self._said:
            self._said = said
            if good:
                logs.event("witness.cosigns", witness=self.names)
            else:
                logs.error("witness.failed", witness=self.names, outcome=str(outcome), why=why)
