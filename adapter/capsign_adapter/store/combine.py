"""Batches that arrive while a commit is under way share the next one: many callers, one fsync.

Nobody waits for company. A caller that finds nothing under way commits at once, alone; those who come meanwhile queue up, and the
first of them commits for all of them when the turn comes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from capsign_adapter.store.interface import Committed, Draft, StoreUnavailableError

MAX_DRAFTS = 2_048
"""Drafts in one transaction, unless a single batch is larger: bounds how long others wait for the turn."""

QUEUED_S = 10.0
"""Longest wait to be taken up by a commit, seconds. A disk that hangs keeps those whose commit it has, and no others."""


@dataclass(slots=True, eq=False)
class Batch:
    """One caller's drafts, with all that could be computed before its turn, and in the end `results` or `error`."""

    epoch: int
    drafts: Sequence[Draft]
    hashes: Sequence[bytes]
    workloads: Mapping[str, int]
    now_ms: int
    results: list[Committed] | None = None
    error: BaseException | None = None
    turn: threading.Event | None = None
    """What its caller waits for; whoever commits at once needs none."""

    @property
    def settled(self) -> bool:
        """Whether it is known what became of it."""
        return self.results is not None or self.error is not None

    def wake(self) -> None:
        """Let its caller go on: to take the answer, or to commit if there is none."""
        assert self.turn is not None
        self.turn.set()


class Combiner:
    """Runs one group of batches at a time. `commit` settles every batch of the group it is given."""

    def __init__(self, commit: Callable[[list[Batch]], None]) -> None:
        self._commit = commit
        self._mutex = threading.Lock()
        self._queue: list[Batch] = []
        self._busy = False

    def submit(self, batch: Batch) -> list[Committed]:
        """What became of the batch, once it is durable. Raises what its commit raised, and StoreUnavailableError if no commit
        took it up in time: then none will.
        """
        with self._mutex:
            queued = self._busy
            if queued:
                batch.turn = threading.Event()
                self._queue.append(batch)
            self._busy = True
        if batch.turn is not None and not batch.turn.wait(QUEUED_S):
            self._give_up(batch)
            batch.turn.wait()  # it is being committed, or its turn has just come
        if not batch.settled:
            self._lead(batch)
        if batch.error is not None:
            raise batch.error
        assert batch.results is not None
        return batch.results

    def _give_up(self, batch: Batch) -> None:
        """Raises StoreUnavailableError if the batch still waits to be taken up."""
        with self._mutex:
            if batch not in self._queue:
                return
            self._queue.remove(batch)
        raise StoreUnavailableError(f"The commit before this one has taken {QUEUED_S:g} s. See to the store and its disk.")

    def _lead(self, batch: Batch) -> None:
        """Commit for this batch and those that queued, then hand the turn to the first of those who came meanwhile."""
        with self._mutex:
            group = self._take(batch)
        try:
            self._commit(group)
        except BaseException as error:
            for member in group:
                if not member.settled:
                    member.error = error
        finally:
            with self._mutex:
                follower = self._queue.pop(0) if self._queue else None
                self._busy = follower is not None
            for member in [*group[1:], *([follower] if follower else [])]:
                member.wake()

    def _take(self, first: Batch) -> list[Batch]:
        group, size = [first], len(first.drafts)
        while self._queue and size + len(self._queue[0].drafts) <= MAX_DRAFTS:
            size += len(self._queue[0].drafts)
            group.append(self._queue.pop(0))
        return group
