"""How the agent is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capsign_wire.agent.v1 import agent_pb2 as pb


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What an agent says of itself to the container whose socket was asked."""

    faults: tuple[str, ...]
    """What keeps it from signing, as words of its health; empty: it signs."""
    split_views: int
    """Adapters that it uses no more, since they showed it another log. Above 0 is an incident."""
    log_size: int
    """Leaves of the evidence log as it has seen it last; 0: not yet."""
    log_seen_s: int
    """How long ago that was confirmed by an adapter, seconds."""
    journal_percent: int
    """The part of its journal that the records of this container take."""


def agent_status(response: pb.GetStatusResponse) -> AgentStatus:
    """The status in the agent's answer."""
    return AgentStatus(
        tuple(response.faults),
        response.split_views,
        response.log_size,
        response.log_seen_s,
        response.journal_percent,
    )
