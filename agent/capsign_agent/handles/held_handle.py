"""A capability handle as one socket holds it."""

from __future__ import annotations

import secrets

from capsign_wire.adapter.v1 import capability_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

from capsign_agent.handles.rate_limit import RateLimit
from capsign_agent.handles.rules import Rule

Issued = capability_pb2.IssuedHandle
Revoked = capability_pb2.RevokedGrant

WITHDRAWN = "The adapter withdrew this handle."
"""What is said of a handle of which the adapter has not said why."""


class HeldHandle:
    """One grant on one socket. A renewal replaces what it holds as a whole, between two calls."""

    __slots__ = (
        "algorithms",
        "expires_at",
        "gone",
        "grant",
        "id",
        "issued",
        "rate",
        "rule",
        "socket",
        "taken_at",
        "token",
        "why",
    )

    def __init__(self, socket: str, grant: str, rate: RateLimit) -> None:
        self.id = secrets.token_urlsafe(16)
        self.socket = socket
        self.grant = grant
        self.rate = rate
        self.issued = Issued()
        self.token = b""
        self.algorithms: frozenset[algorithms_pb2.Algorithm.ValueType] = frozenset()
        self.rule = Rule("", frozenset(), self.issued.context_rule)
        self.expires_at = 0.0
        self.taken_at = 0.0
        """When it was received, by this node's clock; `expires_at` is by the adapter's."""
        self.gone: failures_pb2.Reason.ValueType = failures_pb2.REASON_UNSPECIFIED
        self.why = ""
        """Why it is gone, as the adapter said it."""

    def shown(self) -> agent_pb2.KeyHandle:
        """What the application sees of it."""
        shown = agent_pb2.KeyHandle(
            id=self.id,
            grant=self.grant,
            purpose=self.issued.purpose,
            algorithms=sorted(self.algorithms),
            context_rule=self.issued.context_rule,
            rate_per_second=self.issued.rate_per_second,
        )
        if self.gone:
            shown.withdrawn = (self.why or WITHDRAWN)[:255]
            return shown
        shown.expires_at.FromMilliseconds(int(self.expires_at * 1000))
        return shown
