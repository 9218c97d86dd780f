"""`signer.status()`: how the agent is, in the words that it uses."""

from __future__ import annotations

import pytest
from capsign import AgentStatus, AsyncSigner, Signer, Unavailable
from capsign_wire.agent.v1 import agent_pb2 as pb

TOLD = pb.GetStatusResponse(
    faults=["journal_full"], split_views=1, log_size=7, log_seen_s=3, journal_percent=99
)


def test_what_the_agent_says_of_itself(agent):
    agent.status = TOLD
    with Signer(agent.path) as signer:
        assert signer.status() == AgentStatus(("journal_full",), 1, 7, 3, 99)


async def test_for_asyncio_too(agent):
    agent.status = TOLD
    async with AsyncSigner(agent.path) as signer:
        assert (await signer.status()).split_views == 1


def test_an_agent_that_is_not_there(tmp_path):
    with Signer(str(tmp_path / "nobody.sock")) as signer, pytest.raises(Unavailable):
        signer.status(timeout=0.5)
