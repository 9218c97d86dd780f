"""Whether a handle allows a call: purpose, algorithm, context. Pure: values in, a decision or a
FailureError out.

The adapter decides the same again from the token. The agent decides first so that what must be
refused never leaves the pod, and so that what a rule pins is filled in before a socket's narrowing
blocks are checked upstream.
"""

from __future__ import annotations

from collections.abc import Sequence

from capsign_wire.context_rule import ProtocolRule, check_transcript, choose
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2, signing_pb2

FullContext = tuple[signing_pb2.ContextSuffix, bytes]
"""A full context and its canonical bytes. Shared between calls: nobody changes it."""

REMEMBERED = 64
"""Most contexts that a rule remembers; at the bound all are forgotten."""


class Rule:
    """What one handle on one socket allows. Built once per handle, asked once per group."""

    __slots__ = ("_algorithms", "_protocols", "_purpose", "_remembered", "_transcript")

    def __init__(
        self,
        purpose: str,
        algorithms: frozenset[int],
        context: signing_pb2.ContextRule,
        role: str = "",
    ) -> None:
        """`role` is the one role that the socket is narrowed to; empty: every role of the rule."""
        self._purpose = purpose
        self._algorithms = algorithms
        self._protocols = tuple(
            ProtocolRule(one.protocol, _roles(one.roles, role), tuple(one.versions))
            for one in context.protocols
        )
        self._transcript = {context.transcript}
        self._remembered: dict[tuple[str, int, str, str, str], FullContext] = {}

    @property
    def remembered(self) -> int:
        """How many contexts it remembers."""
        return len(self._remembered)

    def full_context(
        self,
        purpose: str,
        algorithm: algorithms_pb2.Algorithm.ValueType,
        asked: signing_pb2.ContextSuffix,
    ) -> FullContext:
        """What `decide` gives, and its bytes. Applications repeat themselves: what has no
        transcript is remembered.
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
        """The full context of the call. Raises PURPOSE_NOT_ALLOWED, ALGORITHM_NOT_ALLOWED or
        CONTEXT_NOT_ALLOWED.
        """
        if purpose and purpose != self._purpose:
            raise FailureError(
                failures_pb2.REASON_PURPOSE_NOT_ALLOWED,
                "The handle has another purpose.",
                field="purpose",
            )
        if algorithm not in self._algorithms:
            raise FailureError(
                failures_pb2.REASON_ALGORITHM_NOT_ALLOWED,
                "The handle lacks this algorithm.",
                field="algorithm",
            )
        protocol, role, version = choose(self._protocols, asked)
        check_transcript(self._transcript, asked.transcript)
        return signing_pb2.ContextSuffix(
            protocol=protocol, role=role, protocol_version=version, transcript=asked.transcript
        )


def _with_bytes(suffix: signing_pb2.ContextSuffix) -> FullContext:
    return suffix, suffix.SerializeToString(deterministic=True)


def _roles(allowed: Sequence[str], narrowed: str) -> tuple[str, ...]:
    return tuple(one for one in allowed if narrowed in ("", one))
