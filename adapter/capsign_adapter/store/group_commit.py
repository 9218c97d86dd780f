"""Group commit: writes that arrive while a commit is under way share the next one, so that many
callers cost one fsync.

This holds for batches of signatures and for the other writes of workloads (closing an intent, an
agent's report), which would otherwise take as many commits as there are calls.

Nobody waits for others to come. A caller that finds no commit under way commits alone and at once.
Those that come meanwhile queue, and the first of them then commits for all.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capsign_adapter.model.intents import Draft
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.transaction import Head, Transaction

MAX_DRAFTS = 2_048
"""Most drafts in one transaction, unless a single batch is larger: bounds how long others wait."""

SMALL = 32
"""Most drafts of a small batch, which goes before larger ones."""

OVERTAKEN_S = 0.02
"""Longest time that a large batch is overtaken by small ones."""

QUEUED_S = 10.0
"""Longest wait to become part of a commit, seconds. If the disk hangs, only the callers of the
commit under way wait longer.
"""


@dataclass(slots=True, eq=False, kw_only=True)
class Member(ABC):
    """One caller's part of a commit. At its end `results` or `error` is set."""

    results: list[Any] | None = None
    error: BaseException | None = None
    queued_s: float = 0.0
    """When it was queued, by `time.monotonic`."""
    turn: threading.Event | None = None
    """Set when the caller may go on; None for one that commits at once."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Its size as a number of drafts."""

    @property
    def answered(self) -> bool:
        """Whether its outcome is known."""
        return self.results is not None or self.error is not None

    def wake(self) -> None:
        """Let its caller go on: with the outcome, or to commit if there is none."""
        assert self.turn is not None
        self.turn.set()


@dataclass(slots=True, eq=False)
class Batch(Member):
    """One caller's drafts, with what could be computed beforehand. `results` has one `Committed`
    for each.
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
    """A write of another kind. `results` has one item: what `write` returned.

    If `write` raises FailureError or AuditOutOfOrderError, that is its caller's answer, and the
    other members are committed. So it must be raised before anything is written.
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
        """How many members wait to become part of a commit."""
        return len(self._queue)

    def submit(self, member: Member) -> list[Any]:
        """Commit a member. Returns its results once they are durable. Raises what its commit
        raised, and StoreUnavailableError if it did not become part of a commit in time; then it
        never will.
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
        if member.results is None and member.error is None:
            self._lead(member)
        if member.error is not None:
            raise member.error
        assert member.results is not None
        return member.results

    def _give_up(self, member: Member) -> None:
        """Remove a member from the queue. Raises StoreUnavailableError if it was still there."""
        with self._mutex:
            if member not in self._queue:
                return
            self._queue.remove(member)
        raise StoreUnavailableError(
            f"The commit before this one has taken {self._queued_s:g} s. "
            "See to the store and its disk."
        )

    def _lead(self, leader: Member) -> None:
        """Commit this member and those in the queue, then let the first of those that came
        meanwhile commit.
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
                follower = self._follower() if self._queue else None
                self._busy = follower is not None
            for member in [*group[1:], *([follower] if follower else [])]:
                member.wake()

    def _follower(self) -> Member:
        """Returns the member of the queue that commits next: the first small one, or else the
        first.
        """
        first = next(iter(self._small()), self._queue[0])
        self._queue.remove(first)
        return first

    def _take(self, first: Member) -> list[Member]:
        """Returns this member and those that are committed with it, in the order of arrival. Small
        ones go first; then the group has no large ones.
        """
        if not self._queue:
            return [first]
        group, size = [first], first.size
        for member in self._small() or list(self._queue):
            if size + member.size > MAX_DRAFTS:
                break
            self._queue.remove(member)
            size += member.size
            group.append(member)
        return group

    def _small(self) -> list[Member]:
        """Returns the small members of the queue; none if its first has waited so long that it must
        not be overtaken any more.
        """
        if not self._queue or time.monotonic() - self._queue[0].queued_s > self._overtaken_s:
            return []
        return [member for member in self._queue if member.size <= SMALL]
