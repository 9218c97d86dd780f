"""How the agent is, as far as a container may know: nothing of other sockets."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_wire.agent.v1 import agent_pb2

from capsign_agent.journal.journal import Journal
from capsign_agent.witness.witness import Witness

MOST_S = 0xFFFF_FFFF
"""What the field takes."""


def status(
    socket: str, faults: Sequence[str], witness: Witness, journal: Journal
) -> agent_pb2.GetStatusResponse:
    """The answer for this socket; `faults` are the words of the agent's health."""
    return agent_pb2.GetStatusResponse(
        faults=faults,
        split_views=len(witness.left),
        log_size=witness.size,
        log_seen_s=min(MOST_S, int(witness.age_s)),
        journal_percent=round(100 * journal.share_of(socket)),
    )
