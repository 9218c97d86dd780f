"""Which contexts a handle allows. The agent checks this first, so that a request that must be
refused never leaves the pod; the adapter decides it again from the handle and the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2

TRANSCRIPT_LEN = 32
"""A transcript is a SHA-256, bytes."""

_FORBIDS = {signing_pb2.TRANSCRIPT_RULE_FORBIDDEN, signing_pb2.TRANSCRIPT_RULE_UNSPECIFIED}


@dataclass(frozen=True, slots=True)
class ProtocolRule:
    """A protocol with the roles and versions allowed in it. A list of one pins its value: a caller
    need not name it.
    """

    protocol: str
    roles: tuple[str, ...]
    versions: tuple[str, ...]


def choose(rules: Sequence[ProtocolRule], asked: signing_pb2.ContextSuffix) -> tuple[str, str, str]:
    """Returns protocol, role and version: what the caller chose among the allowed values, or the
    pinned one.

    Raises FailureError CONTEXT_NOT_ALLOWED.
    """
    protocol = _pick("protocol", asked.protocol, [rule.protocol for rule in rules])
    rule = next(each for each in rules if each.protocol == protocol)
    role = _pick("role", asked.role, rule.roles)
    return protocol, role, _pick("protocol_version", asked.protocol_version, rule.versions)


def check_transcript(rules: AbstractSet[int], transcript: bytes) -> None:
    """Raise FailureError if one of the rules (TranscriptRule) forbids this transcript, empty
    if there is none: CONTEXT_NOT_ALLOWED, or INPUT_MALFORMED for one that is no SHA-256.
    """
    if transcript and len(transcript) != TRANSCRIPT_LEN:
        sentence = f"A transcript is {TRANSCRIPT_LEN} bytes: a SHA-256."
        raise FailureError(
            failures_pb2.REASON_INPUT_MALFORMED, sentence, field="context.transcript"
        )
    if transcript and rules & _FORBIDS:
        raise _not_allowed("transcript", "The handle takes no transcript.")
    if not transcript and signing_pb2.TRANSCRIPT_RULE_REQUIRED in rules:
        sentence = "The handle requires a transcript: the SHA-256 of what both sides have seen."
        raise _not_allowed("transcript", sentence)


def _pick(field: str, asked: str, allowed: Sequence[str]) -> str:
    if asked:
        if asked in allowed:
            return asked
        raise _not_allowed(field, f"That {field} is not allowed; allowed: {_listed(allowed)}.")
    if len(allowed) == 1:
        return allowed[0]
    if not allowed:
        raise _not_allowed(field, f"The handle allows no {field} here.")
    sentence = f"Name the {field}, because several are allowed: {_listed(allowed)}."
    raise _not_allowed(field, sentence)


def _listed(allowed: Sequence[str]) -> str:
    return ", ".join(allowed) or "none"


def _not_allowed(field: str, sentence: str) -> FailureError:
    return FailureError(failures_pb2.REASON_CONTEXT_NOT_ALLOWED, sentence, field=f"context.{field}")
