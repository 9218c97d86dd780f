"""Batches that arrive while a commit is under way share the next one: many callers, one fsync.

Nobody waits for company. A caller that finds nothing under way commits at once, alone; those who
come meanwhile queue up, and the first of them commits for all of them when the turn comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from capsign_adapter.store.interface import Committed, Draft, StoreUnavailableError

MAX_DRAFTS = 2_048
"""Drafts in one transaction, unless a single batch is larger: bounds how long others wait for the
turn.
"""

SMALL = 32
"""Drafts of a batch that does not wait behind larger ones."""

OVERTAKEN_S = 0.02
"""How long a large batch may be overtaken by small ones."""

QUEUED_S = 10.0
"""Longest wait to be taken up by a commit, seconds. A disk that hangs keeps those whose commit it
has, and no others.
"""


@dataclass(slots=True, eq=False)
class Batch:
    """One caller's drafts, with all that could be computed before its turn, and in the end
    `results` or `error`.
    """

    epoch: int
    drafts: Sequence[Draft]
    hashes: Sequence[bytes]
    workloads: Mapping[str, int]
    now_ms: int
    results: list[Committed] | None = None
    error: BaseException | None = None
    queued_s: float = 0.0
    """When it began to wait."""
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
    """Runs one group of batches at a time. `commit` settles every batch of the group it is
    given.
    """

    def __init__(self, commit: Callable[[list[Batch]], None]) -> None:
        self._commit = commit
        self._mutex = threading.Lock()
        self._queue: list[Batch] = []
        self._busy = False

    def submit(self, batch: Batch) -> list[Committed]:
        """What became of the batch, once it is durable. Raises what its commit raised, and
        StoreUnavailableError if no commit took it up in time: then none will.
        """
        with self._mutex:
            queued = self._busy
            if queued:
                batch.turn, batch.queued_s = threading.Event(), time.monotonic()
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
        raise StoreUnavailableError(
            f"The commit before this one has taken {QUEUED_S:g} s. See to the store and its disk."
        )

    def _lead(self, batch: Batch) -> None:
        """Commit for this batch and those that queued, then hand the turn to the first of those who
        came meanwhile.
        """
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
                follower = self._follower()
                self._busy = follower is not None
            for member in [*group[1:], *([follower] if follower else [])]:
                member.wake()

    def _follower(self) -> Batch | None:
        """Who commits next: the first that is small, or else the first."""
        if not self._queue:
            return None
        first = next(iter(self._small()), self._queue[0])
        self._queue.remove(first)
        return first

    def _take(self, first: Batch) -> list[Batch]:
        """This batch and those that go with it, in the order in which they came; but what is small
        goes before what is large, and then the group is not large either.
        """
        group, size = [first], len(first.drafts)
        for batch in self._small() or list(self._queue):
            if size + len(batch.drafts) > MAX_DRAFTS:
                break
            self._queue.remove(batch)
            size += len(batch.drafts)
            group.append(batch)
        return group

    def _small(self) -> list[Batch]:
        """Those that wait and are small, unless the first has waited so long that it must not be
        overtaken any more.
        """
        if not self._queue or time.monotonic() - self._queue[0].queued_s > OVERTAKEN_S:
            return []
        return [batch for batch in self._queue if len(batch.drafts) <= SMALL]
