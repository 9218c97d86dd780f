"""In which order replicas of this process hand signatures to gRPC and answer to `revoke`: one count
for all of them, taken on the server's side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from capsign_adapter.sign.revocation_barrier import ReleaseTicket, RevocationBarrier
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.types.v1 import signing_pb2

Answer = pb.SignResponse | pb.ResolveIntentResponse


class ReleaseOrder:
    """`watch` the replicas before anybody calls them. Safe for any thread."""

    def __init__(self, version: int) -> None:
        """Signatures of this key version count."""
        self._version = version
        self._lock = threading.Lock()
        self._moment = 0
        self._released: list[int] = []
        self._enforced: dict[int, int] = {}
        self._current = threading.local()
        self.signed = 0
        """Answers with a signature of the version that were handed over."""

    def watch(self, replica: Any) -> None:
        """Take part in what this `serve.Replica` releases and enforces from now on."""
        state, path = replica.state, replica.path
        barrier, enforce = state.barrier, state.epochs.enforce
        run, resolved = path.pipeline.run, path.resolutions.of

        def ticket(cancel: Callable[[], object]) -> ReleaseTicket:
            self._current.ticket = watched = _WatchedTicket(barrier, cancel, self._handed_over)
            return watched

        def noted_run(peer: Any, request: Any, ticket: _WatchedTicket) -> Any:
            ticket.answer = run(peer, request, ticket)
            return ticket.answer

        def noted_resolve(*arguments: Any) -> Any:
            self._current.ticket.answer = answer = resolved(*arguments)
            return answer

        def noted_enforce(epoch: int) -> None:
            enforce(epoch)
            with self._lock:  # the last that `Revoke` does before its answer
                self._enforced[epoch] = self._next()

        barrier.ticket = ticket
        path.pipeline.run, path.resolutions.of = noted_run, noted_resolve
        state.epochs.enforce = noted_enforce

    def now(self) -> int:
        """A moment after all that has happened."""
        with self._lock:
            return self._next()

    def released_between(self, epoch: int, until: int) -> int:
        """How many answers were on the wire after `revoke` had answered with this epoch, and before
        the moment `until`. What was released before is forgotten.
        """
        with self._lock:
            answered = self._enforced.pop(epoch)
            found = sum(answered < moment < until for moment in self._released)
            self._released = [moment for moment in self._released if moment >= until]
        return found

    def _next(self) -> int:
        self._moment += 1
        return self._moment

    def _handed_over(self, answer: Answer) -> None:
        if self._version in versions_in(answer):
            with self._lock:
                self.signed += 1
                self._released.append(self._next())


class _WatchedTicket(ReleaseTicket):
    """Says so when an answer is on the wire: before the barrier hears it."""

    __slots__ = ("_told", "answer", "may_go")

    def __init__(
        self,
        barrier: RevocationBarrier,
        cancel: Callable[[], object],
        told: Callable[[Answer], None],
    ) -> None:
        super().__init__(barrier, cancel)
        self._told = told
        self.answer: Answer | None = None
        self.may_go = False

    def authorize_release(self) -> bool:
        self.may_go = super().authorize_release()
        return self.may_go

    def leave(self) -> None:
        self._left()
        super().leave()

    def close(self) -> None:
        self._left()
        super().close()

    def _left(self) -> None:
        if self.may_go and self.answer is not None:
            self._told(self.answer)
        self.may_go, self.answer = False, None


def versions_in(answer: Answer) -> set[int]:
    """The key versions of the signatures in an answer."""
    return {
        group.signed_by[signature.key].version
        for group in _groups(answer)
        for item in group.items
        for signature in item.signatures
    }


def _groups(answer: Answer) -> Iterable[signing_pb2.SignedGroup]:
    return answer.groups if isinstance(answer, pb.SignResponse) else [answer.done]
