"""Whether a handle allows a call: purpose, algorithm, context. Pure: returns the full context or
raises FailureError.

The adapter decides the same again from the token. The agent decides first, so that what will be
refused never leaves the pod, and so that values that the rule pins are filled in before the adapter
checks the narrowing blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from capsign_wire.context_rule import ProtocolRule, check_transcript, choose
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2, signing_pb2

FullContext = tuple[signing_pb2.ContextSuffix, bytes]
"""A full context and its canonical bytes. Shared between calls; must not be changed."""

REMEMBERED = 64
"""Most contexts that a rule caches; at the bound the cache is emptied."""


class Rule:
    """What one handle allows on one socket. Made once for each handle, asked once for each
    group.
    """

    __slots__ = ("_algorithms", "_protocols", "_purpose", "_remembered", "_transcript")

    def __init__(
        self,
        purpose: str,
        algorithms: frozenset[int],
        context: signing_pb2.ContextRule,
        role: str = "",
    ) -> None:
        """`role`: the one role to which the socket is narrowed; empty: every role of the rule."""
        self._purpose = purpose
        self._algorithms = algorithms
        self._protocols = tuple(
            ProtocolRule(one.protocol, _roles(one.roles, role), tuple(one.versions))
            for one in context.protocols
        )
        self._transcript = {context.transcript}
        self._remembered: dict[tuple[str, int, str, str, str], FullContext] = {}

    @property
    def algorithms(self) -> frozenset[int]:
        """Those that it allows."""
        return self._algorithms

    @property
    def remembered(self) -> int:
        """How many contexts are cached."""
        return len(self._remembered)

    def full_context(
        self,
        purpose: str,
        algorithm: algorithms_pb2.Algorithm.ValueType,
        asked: signing_pb2.ContextSuffix,
    ) -> FullContext:
        """The result of `decide` and its canonical bytes. Cached unless there is a transcript,
        because applications use few contexts.
        """
        if asked.transcript:
            return _with_bytes(self.decide(purpose, algorithm, asked))
        asked_for = (purpose, algorithm, asked.protocol, asked.role, asked.protocol_version)
        full = self._remembered.get(asked_for)
        if full is None:
            full = _with_bytes(self.decide(purpose, algorithm, asked))
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[asked_for] = full
        return full

    def decide(
        self,
        purpose: str,
        algorithm: algorithms_pb2.Algorithm.ValueType,
        asked: signing_pb2.ContextSuffix,
    ) -> signing_pb2.ContextSuffix:
        """The full context of the call; an algorithm of 0 is left open. Raises PURPOSE_NOT_ALLOWED,
        ALGORITHM_NOT_ALLOWED or CONTEXT_NOT_ALLOWED.
        """
        if purpose and purpose != self._purpose:
            raise FailureError(
                failures_pb2.REASON_PURPOSE_NOT_ALLOWED,
                "The handle has another purpose.",
                field="purpose",
            )
        if algorithm and algorithm not in self._algorithms:
            raise FailureError(
                failures_pb2.REASON_ALGORITHM_NOT_ALLOWED,
                "The handle lacks this algorithm.",
                field="algorithm",
            )
        return self.context(asked)

    def context(self, asked: signing_pb2.ContextSuffix) -> signing_pb2.ContextSuffix:
        """The full context, for whatever algorithm. Raises CONTEXT_NOT_ALLOWED."""
        protocol, role, version = choose(self._protocols, asked)
        check_transcript(self._transcript, asked.transcript)
        return signing_pb2.ContextSuffix(
            protocol=protocol, role=role, protocol_version=version, transcript=asked.transcript
        )


def _with_bytes(suffix: signing_pb2.ContextSuffix) -> FullContext:
    return suffix, suffix.SerializeToString(deterministic=True)


def _roles(allowed: Sequence[str], narrowed: str) -> tuple[str, ...]:
    return tuple(one for one in allowed if narrowed in ("", one))
