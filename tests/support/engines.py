"""Tests of the agent's front with each of its engines (decision 77)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest
from capsign_agent.front.engines import ENGINES
from support.agent_home import Home

UNKEPT: Mapping[str, str] = MappingProxyType(
    {
        "test_whoever_resets_a_stream_is_asked_for_a_sign_of_life": "it sends no ping for a reset",
        "test_compressed_messages_are_not_taken": "it unpacks gzip, to whatever size that has",
        "test_connections_above_the_bound_are_hung_up_on": "it has no bound on connections",
    }
)
"""What `native` does not keep: the test, and why not. Once it does, that test fails here."""


def use(name: str, place: Home, request: pytest.FixtureRequest) -> None:
    """Serve with this engine. Skips where its package is not installed."""
    engine = ENGINES[name]
    pytest.importorskip(engine.package, reason=f"{engine.package} is not installed")
    place.extra += f'[front]\nengine = "{name}"\n'
    why = UNKEPT.get(request.node.originalname)
    if name == "native" and why is not None:
        request.applymarker(pytest.mark.xfail(reason=why, strict=True))
