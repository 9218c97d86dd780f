"""By which rule the signatures of one message are verified: one of them is enough, or all must be
good. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, TypeAlias

from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons

from capsign import requests
from capsign.call import Call, asking
from capsign.errors import InvalidSignature, Refused
from capsign.handle_selector import HandleSelector
from capsign.handles import HandleCache
from capsign.inputs import Buffer, algorithm_row, octets
from capsign.results import PublicKey, Signature
from capsign.translate import exception, public_key

Rule: TypeAlias = Literal["either", "both"]
Given: TypeAlias = Signature | Buffer | Sequence[Signature | tuple[str, Buffer]]
"""A signature with the others of its call, its bytes alone, or several with their algorithms."""

MOST = 2
"""Signatures that one call has at most."""


class Signatures:
    """The signatures of a message as a verifier was given them, and what his rule asks for."""

    def __init__(
        self, given: Given, algorithm: str | None, rule: Rule, required: Collection[str]
    ) -> None:
        """`required`: algorithms by each of which one must be good. Raises ValueError for what is
        no signature, or no rule, and Refused for an unknown algorithm.
        """
        if rule not in {"either", "both"}:
            raise ValueError("rule is 'either' or 'both'")
        if isinstance(required, str):
            raise TypeError("give a list of algorithms")
        self.required = frozenset(algorithm_row(name).name for name in required)
        self.is_all = rule == "both" or bool(self.required)
        self.least = MOST if rule == "both" else max(1, len(self.required))
        self.parts = _parts(given, algorithm)
        if not 0 < len(self.parts) <= MOST:
            raise ValueError(f"give one signature, or {MOST}")
        names = {row.name for row, _ in self.parts}
        if self.is_all and (len(self.parts) < self.least or not self.required <= names):
            lacking = ", ".join(sorted(self.required - names)) or "the second"
            raise missing(f"A signature is missing that the rule asks for: {lacking}.")

    def accepted(self, keys: Sequence[PublicKey]) -> PublicKey:
        """The first key, if these, under which all are good, are as many as the rule asks for.
        Raises InvalidSignature SIGNATURE_MISSING: one signature sent twice is one.
        """
        if len({key.kid for key in keys}) < self.least:
            raise missing("Both signatures are by one key: the second is missing.")
        return keys[0]


def verifying(
    book: HandleCache,
    selector_of: Callable[[str], HandleSelector],
    message: tuple[Buffer | None, Buffer | None],
    signatures: Signatures,
    timeout: float,
) -> Call[PublicKey]:
    """Ask the agent about each signature until the rule is decided; returns the key of the first
    that is good. `message` is the message or its digest. Raises InvalidSignature, and Refused if
    none could be verified.
    """
    found: list[PublicKey] = []
    failed: Refused | None = None
    for row, value in signatures.parts:
        selector = selector_of(row.name)
        build = requests.verification(selector, row, *message, value)
        try:
            response: pb.VerifyResponse = yield from asking(
                book, selector, "Verify", build, timeout
            )
        except Refused as error:
            if signatures.is_all:
                raise
            # who knows one of them takes that one; a bad one says more than one that is not known
            if failed is None or isinstance(error, InvalidSignature):
                failed = error
            continue
        found.append(public_key(response.key))
        if not signatures.is_all:
            return found[0]
    if failed is not None:
        raise failed
    return signatures.accepted(found)


def missing(text: str) -> Any:
    """The error of a rule that asks for more signatures than there are."""
    return exception(FailureError(reasons.REASON_SIGNATURE_MISSING, text, field="signature"))


def _parts(given: Given, algorithm: str | None) -> list[tuple[AlgorithmRow, bytes]]:
    if isinstance(given, Signature):
        if algorithm is not None:
            return [(algorithm_row(algorithm), given.value)]
        return [(algorithm_row(one.algorithm), one.value) for one in given.signatures]
    if isinstance(given, bytes | bytearray | memoryview):
        if algorithm is None:
            raise ValueError("give algorithm= when the signature is given as bytes")
        return [(algorithm_row(algorithm), octets(given))]
    parts: list[tuple[AlgorithmRow, bytes]] = []
    for one in given:
        name, value = (one.algorithm, one.value) if isinstance(one, Signature) else one
        parts.append((algorithm_row(name), octets(value)))
    return parts
