"""Whether a handle allows a call: purpose, algorithm, context. Pure: values in, a decision or a
FailureError out.

The adapter decides the same again from the token. The agent decides first so that what must be
refused never leaves the pod, and so that what a rule pins is filled in before a socket's narrowing
blocks are checked upstream.
"""

from __future__ import annotations

from collections.abc import Sequence

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2, signing_pb2

Settled = tuple[signing_pb2.ContextSuffix, bytes]
"""A full context and its canonical bytes. Shared between calls: nobody changes it."""

REMEMBERED = 64
"""Most contexts that a rule remembers; at the bound all are forgotten."""


class Rule:
    """What one handle on one socket allows. Built once per handle, asked once per group."""

    __slots__ = ("_algorithms", "_protocols", "_purpose", "_role", "_settled", "_transcript")

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
        self._protocols = {
            one.protocol: (tuple(one.roles), tuple(one.versions)) for one in context.protocols
        }
        self._transcript = context.transcript
        self._role = role
        self._settled: dict[tuple[str, int, str, str, str], Settled] = {}

    def settle(
        self,
        purpose: str,
        algorithm: algorithms_pb2.Algorithm.ValueType,
        asked: signing_pb2.ContextSuffix,
    ) -> Settled:
        """What `decide` gives, and its bytes. Applications repeat themselves: what has no
        transcript is remembered.
        """
        if asked.transcript:
            return _with_bytes(self.decide(purpose, algorithm, asked))
        wish = (purpose, algorithm, asked.protocol, asked.role, asked.protocol_version)
        settled = self._settled.get(wish)
        if settled is None:
            settled = _with_bytes(self.decide(purpose, algorithm, asked))
            if len(self._settled) >= REMEMBERED:
                self._settled.clear()
            self._settled[wish] = settled
        return settled

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
        protocol = _pick("protocol", asked.protocol, tuple(self._protocols))
        roles, versions = self._protocols[protocol]
        if self._role:
            roles = tuple(one for one in roles if one == self._role)
        role = _pick("role", asked.role, roles)
        version = _pick("protocol_version", asked.protocol_version, versions)
        self._check_transcript(bool(asked.transcript))
        return signing_pb2.ContextSuffix(
            protocol=protocol, role=role, protocol_version=version, transcript=asked.transcript
        )

    def _check_transcript(self, given: bool) -> None:
        if given and self._transcript not in {
            signing_pb2.TRANSCRIPT_RULE_ALLOWED,
            signing_pb2.TRANSCRIPT_RULE_REQUIRED,
        }:
            raise _not_allowed("transcript", "The handle allows no transcript.")
        if not given and self._transcript == signing_pb2.TRANSCRIPT_RULE_REQUIRED:
            raise _not_allowed("transcript", "The handle requires a transcript.")


def _with_bytes(suffix: signing_pb2.ContextSuffix) -> Settled:
    return suffix, suffix.SerializeToString(deterministic=True)


def _pick(field: str, asked: str, allowed: Sequence[str]) -> str:
    """What was asked if it is allowed; what is pinned if nothing was asked."""
    if asked:
        if asked in allowed:
            return asked
        raise _not_allowed(field, f"The handle does not allow this {field}.")
    if len(allowed) == 1:
        return allowed[0]
    if not allowed:
        raise _not_allowed(field, f"This socket allows no {field} of the handle.")
    raise _not_allowed(field, f"The handle allows several values of {field}: name one.")


def _not_allowed(field: str, sentence: str) -> FailureError:
    return FailureError(failures_pb2.REASON_CONTEXT_NOT_ALLOWED, sentence, field=f"context.{field}")
