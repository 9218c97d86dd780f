"""Key sets at the listener for verifiers. HTTP itself is elsewhere."""

from __future__ import annotations

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign_adapter.decide.jwks import KeySet
from capsign_adapter.front.public_answers import Answer, Question
from capsign_adapter.model.key_readers import ANONYMOUS, BY_HTTPS
from capsign_adapter.sign.key_readers import KeyReaders
from capsign_adapter.sign.key_sets import KeySets

MAX_NAME = 64
"""Longest part of a path and longest value of a parameter, characters."""

_PARAMETERS = frozenset({"protocol", "role", "version"})


class Routes:
    """`/v1/jwks/TENANT/GRANT?protocol=…&role=…&version=…`. What the grant pins may be left out."""

    def __init__(self, sets: KeySets, readers: KeyReaders) -> None:
        self._sets = sets
        self._readers = readers

    def known(self, question: Question) -> Answer | None:
        """The answer, if it is in memory. Raises FailureError for what never has one."""
        where = _place(question)
        found = self._sets.known(*where)
        return self._answer(found, where[1], question) if found is not None else None

    def made(self, question: Question) -> Answer:
        """The answer, for which the token may have to derive keys. Raises FailureError."""
        where = _place(question)
        return self._answer(self._sets.of(*where), where[1], question)

    def _answer(self, found: KeySet, grant: str, question: Question) -> Answer:
        """The answer. Whoever hears 304 has the set, as whoever is given it; to a HEAD nothing is
        given.
        """
        if not question.is_head:
            peer = question.peer
            who = BY_HTTPS + peer.spiffe_id if peer is not None else ANONYMOUS
            self._readers.served(grant, who, found.newest, found.sequence)
        headers = {
            "Content-Type": "application/jwk-set+json",
            "Cache-Control": f"public, max-age={found.kept_s}",
            "ETag": found.etag,
        }
        return Answer(200, found.body, headers).unless_known(question)


def _place(question: Question) -> tuple[str, str, signing_pb2.ContextSuffix]:
    parts, given = question.path.split("/"), question.parameters
    if len(parts) != 5 or parts[:3] != ["", "v1", "jwks"]:
        detail = "There is nothing at this path. Key sets are at /v1/jwks/TENANT/GRANT."
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail)
    if given.keys() - _PARAMETERS or any(
        len(each) > MAX_NAME for each in (*parts, *given.values())
    ):
        detail = f"Parameters are protocol, role and version; none is above {MAX_NAME} characters."
        raise FailureError(failures_pb2.REASON_INPUT_MALFORMED, detail)
    suffix = signing_pb2.ContextSuffix(
        protocol=given.get("protocol", ""),
        role=given.get("role", ""),
        protocol_version=given.get("version", ""),
    )
    return parts[3], parts[4], suffix
