"""Questions and answers of the listener for verifiers, apart from HTTP and from what is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.peer import Peer

_STATUS: Mapping[int, int] = {
    failures_pb2.REASON_NOT_FOUND: 404,
    failures_pb2.REASON_NOT_IN_LOG: 404,
    failures_pb2.REASON_CONTEXT_NOT_ALLOWED: 400,
    failures_pb2.REASON_INPUT_MALFORMED: 400,
    failures_pb2.REASON_INPUT_TOO_LARGE: 413,
    failures_pb2.REASON_ROLE_MISSING: 403,
    failures_pb2.REASON_IDENTITY_UNKNOWN: 403,
    failures_pb2.REASON_RATE_LIMITED: 429,
}


@dataclass(frozen=True, slots=True)
class Question:
    """A request, as far as an answer depends on it."""

    path: str
    parameters: Mapping[str, str]
    if_none_match: str = ""
    is_head: bool = False
    takes_gzip: bool = False
    peer: Peer | None = None
    """Who asks, if the connection has a certificate that we trust."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and headers. A HEAD has the same without the body."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def unless_known(self, question: Question) -> Answer:
        """This, or 304 if whoever asks has it (RFC 9110, section 13.1.2)."""
        tags = {tag.strip().removeprefix("W/") for tag in question.if_none_match.split(",")}
        if tags & {self.headers["ETag"], "*"}:
            return Answer(304, b"", self.headers)
        return self


def problem(error: FailureError) -> Answer:
    """A refusal as RFC 9457 has it. What is not the caller's doing is 503: ask again."""
    status = _STATUS.get(error.reason, 503)
    said = {"title": error.row.name, "status": status, "detail": error.detail}
    headers = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
    if status in {429, 503}:
        headers["Retry-After"] = str(max(1, -(-error.retry_after_ms // 1000)))
    return Answer(status, json.dumps(said).encode(), headers)
