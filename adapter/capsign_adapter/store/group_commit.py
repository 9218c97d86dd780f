"""What is to be written while a commit is under way shares the next one: many callers, one fsync.

Batches of signatures do, and so do the other writes of workloads: an intent that is closed, an
agent's report. With a commit each they would have as many turns at the disk as whoever signs.

Nobody waits for company. A caller that finds nothing under way commits at once, alone; those who
come meanwhile queue up, and the first of them commits for all of them when the turn comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capsign_adapter.model.intents import Draft
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.transaction import Head, Transaction

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


@dataclass(slots=True, eq=False, kw_only=True)
class Member:
    """One caller's part of a commit, and in the end its `results` or `error`."""

    results: list[Any] | None = None
    error: BaseException | None = None
    queued_s: float = 0.0
    """When it began to wait."""
    turn: threading.Event | None = None
    """What its caller waits for; whoever commits at once needs none."""

    @property
    def size(self) -> int:
        """Drafts, or what takes as long."""
        raise NotImplementedError

    @property
    def answered(self) -> bool:
        """Whether it is known what became of it."""
        return self.results is not None or self.error is not None

    def wake(self) -> None:
        """Let its caller go on: to take the answer, or to commit if there is none."""
        assert self.turn is not None
        self.turn.set()


@dataclass(slots=True, eq=False)
class Batch(Member):
    """One caller's drafts, with all that could be computed before its turn. `results` has one
    `Committed` for each.
    """

    epoch: int
    drafts: Sequence[Draft]
    hashes: Sequence[bytes]
    workloads: Mapping[str, int]
    now_ms: int

    @property
    def size(self) -> int:
        return len(self.drafts)


@dataclass(slots=True, eq=False)
class Errand(Member):
    """Another write. `results` has the one thing that `write` returned.

    A FailureError or AuditOutOfOrderError of `write` is its caller's answer, and its neighbours
    are committed: it must be raised before anything is written.
    """

    write: Callable[[Transaction, Head], Any]
    leaves: int = 1

    @property
    def size(self) -> int:
        return self.leaves


class GroupCommit:
    """Commits members in groups, one group at a time. `commit` gives every member of its group
    `results` or `error`.
    """

    def __init__(
        self,
        commit: Callable[[list[Member]], None],
        *,
        queued_s: float = QUEUED_S,
        overtaken_s: float = OVERTAKEN_S,
    ) -> None:
        self._commit = commit
        self._queued_s, self._overtaken_s = queued_s, overtaken_s
        self._mutex = threading.Lock()
        self._queue: list[Member] = []
        self._busy = False

    @property
    def queued(self) -> int:
        """How many wait to be taken up by a commit."""
        return len(self._queue)

    def submit(self, member: Member) -> list[Any]:
        """What became of it, once it is durable. Raises what its commit raised, and
        StoreUnavailableError if no commit took it up in time: then none will.
        """
        with self._mutex:
            queued = self._busy
            if queued:
                member.turn, member.queued_s = threading.Event(), time.monotonic()
                self._queue.append(member)
            self._busy = True
        if member.turn is not None and not member.turn.wait(self._queued_s):
            self._give_up(member)
            member.turn.wait()  # it is being committed, or its turn has just come
        if not member.answered:
            self._lead(member)
        if member.error is not None:
            raise member.error
        assert member.results is not None
        return member.results

    def _give_up(self, member: Member) -> None:
        """Raises StoreUnavailableError if it still waits to be taken up."""
        with self._mutex:
            if member not in self._queue:
                return
            self._queue.remove(member)
        raise StoreUnavailableError(
            f"The commit before this one has taken {self._queued_s:g} s. "
            "See to the store and its disk."
        )

    def _lead(self, leader: Member) -> None:
        """Commit for this one and those that queued, then hand the turn to the first of those who
        came meanwhile.
        """
        with self._mutex:
            group = self._take(leader)
        try:
            self._commit(group)
        except BaseException as error:
            for member in group:
                if not member.answered:
                    member.error = error
        finally:
            with self._mutex:
                follower = self._follower()
                self._busy = follower is not None
            for member in [*group[1:], *([follower] if follower else [])]:
                member.wake()

    def _follower(self) -> Member | None:
        """Who commits next: the first that is small, or else the first."""
        if not self._queue:
            return None
        first = next(iter(self._small()), self._queue[0])
        self._queue.remove(first)
        return first

    def _take(self, first: Member) -> list[Member]:
        """This one and those that go with it, in the order in which they came; but what is small
        goes before what is large, and then the group is not large either.
        """
        group, size = [first], first.size
        for member in self._small() or list(self._queue):
            if size + member.size > MAX_DRAFTS:
                break
            self._queue.remove(member)
            size += member.size
            group.append(member)
        return group

    def _small(self) -> list[Member]:
        """Those that wait and are small, unless the first has waited so long that it must not be
        overtaken any more.
        """
        if not self._queue or time.monotonic() - self._queue[0].queued_s > self._overtaken_s:
            return []
        return [member for member in self._queue if member.size <= SMALL]
