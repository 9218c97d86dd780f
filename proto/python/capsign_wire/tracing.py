"""Traces across application, agent and adapter: W3C trace context in, one span a message, W3C trace
context out.

Off costs one attribute look-up. On, a span is made only where the caller's trace is sampled, or the
sampler that OTEL_TRACES_SAMPLER names chooses a new one. Spans are sampled; evidence never is. A
span's attributes come from enumerations, as metric labels do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import REASONS, ReasonRow
from capsign_wire.types.v1 import failures_pb2 as pb


class Span(Protocol):
    """What is under way. A context manager: leaving it ends the span."""

    @property
    def traceparent(self) -> str:
        """What to hand on, a W3C traceparent of 55 characters; empty where there is no trace."""

    @property
    def recording(self) -> bool:
        """Whether anybody will see what is noted."""

    def note(self, key: str, value: str | int) -> None:
        """Attach an attribute, `capsign.<key>`: an enumeration's name or a number."""

    def failed(self, error_type: str) -> None:
        """What is under way ends in an error of ours, of this enumerated kind."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Tracer(Protocol):
    """Starts spans."""

    def span(
        self, name: str, traceparent: str = "", *, links: Sequence[str] = (), method: str = ""
    ) -> Span:
        """Start a span as a child of `traceparent` (as `trace_context.read` gave it), or of
        nothing.

        `links` are traces that it works for too; `method` is the RPC that it serves, as
        `package.Service/Method`.
        """


class PassingSpan:
    """No span of our own: only hands on what came in."""

    __slots__ = ("traceparent",)

    recording = False

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def note(self, key: str, value: str | int) -> None:
        """Nothing to attach it to."""

    def failed(self, error_type: str) -> None:
        """Nothing that could show it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return


_NOTHING = PassingSpan("")


class PassingTracer:
    """Tracing is off: trace context is handed on, nothing is recorded."""

    def span(
        self, name: str, traceparent: str = "", *, links: Sequence[str] = (), method: str = ""
    ) -> Span:
        return PassingSpan(traceparent) if traceparent else _NOTHING


_WORST_FIRST = (pb.OUTCOME_UNKNOWN, pb.OUTCOME_UNAVAILABLE, pb.OUTCOME_REFUSED)


def note_items(
    span: Span,
    algorithms: Iterable[int],
    items: int,
    failures: Counter[pb.Reason.ValueType],
) -> None:
    """Say on a span what was asked and what came of it: of several outcomes the worst, of several
    reasons its most frequent.

    `failures` counts the items that failed, by reason. A refusal is an answer and no error of the
    server; the others are.
    """
    span.note("items", items)
    span.note(
        "algorithm",
        ",".join(
            sorted({ALGORITHMS[number].name for number in algorithms if number in ALGORITHMS})
        ),
    )
    failed = failures.total()
    if not failed:
        span.note("outcome", "done")
        return
    span.note("items.failed", failed)
    row = _worst(failures)
    span.note("outcome", pb.Outcome.Name(row.outcome).removeprefix("OUTCOME_").lower())
    span.note("reason", row.name)
    if row.outcome != pb.OUTCOME_REFUSED:
        span.failed(row.name)


def _worst(failures: Counter[pb.Reason.ValueType]) -> ReasonRow:
    rows = [
        REASONS.get(reason, REASONS[pb.REASON_INTERNAL]) for reason, _ in failures.most_common()
    ]
    return min(rows, key=lambda row: _WORST_FIRST.index(row.outcome))
