"""Traces across application, agent and adapter: W3C trace context in, one span a call, W3C trace context out.

Off costs one attribute look-up. On, a span is made only where the caller's trace is sampled, or the sampler that
OTEL_TRACES_SAMPLER names chooses a new one. Spans are sampled; evidence never is. A span's attributes come from enumerations, as
metric labels do.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

SAMPLED_SUFFIX = "-01"
"""How a version 00 traceparent ends whose trace is recorded."""


class Span(Protocol):
    """What is under way. A context manager: leaving it ends the span."""

    @property
    def traceparent(self) -> str:
        """What to hand on, a W3C traceparent of 55 characters; empty where there is no trace."""

    def note(self, key: str, value: str | int) -> None:
        """Attach an attribute: an enumeration's name or a number."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Tracer(Protocol):
    """Starts spans."""

    def span(self, name: str, traceparent: str = "") -> Span:
        """Start a span as a child of `traceparent` (already checked against its format), or of nothing."""


class PassingSpan:
    """No span of our own: only hands on what came in."""

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def note(self, key: str, value: str | int) -> None:
        """Nothing to attach it to."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return


_NOTHING = PassingSpan("")


class PassingTracer:
    """Tracing is off: trace context is handed on, nothing is recorded."""

    def span(self, name: str, traceparent: str = "") -> Span:
        return PassingSpan(traceparent) if traceparent else _NOTHING
