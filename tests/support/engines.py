"""Tests of the agent's front with each of its engines (decision 77)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import pytest
from capsign_agent.front.engines import ENGINES
from capsign_cli.dev import layout
from support.agent_home import Home

UNKEPT: Mapping[str, str] = MappingProxyType(
    {
        "test_whoever_resets_a_stream_is_asked_for_a_sign_of_life": "it sends no ping for a reset",
        "test_compressed_messages_are_not_taken": "it unpacks gzip, to whatever size that has",
        "test_connections_above_the_bound_are_hung_up_on": "it has no bound on connections",
    }
)
"""What `native` does not keep: the test, and why not. Once it does, that test fails here."""

_AT_THE_SOCKET = "test_hostile_agent_socket"
UNKEPT_BY_PROCESSES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        (
            _AT_THE_SOCKET,
            "test_a_compressed_message_by_hand_is_refused",
        ): "it unpacks gzip, to whatever size",
        (
            _AT_THE_SOCKET,
            "test_who_connects_and_does_not_go_on_is_hung_up_on",
        ): "it waits for a client for ever",
    }
)
"""The same of the system tests, by file and name. They run with `native` where
`layout.ENGINE_VARIABLE` says so.
"""


def expect(items: Iterable[pytest.Item]) -> None:
    """Mark the system tests that are expected to fail with the engine of this run."""
    if os.environ.get(layout.ENGINE_VARIABLE) != "native":
        return
    for item in items:
        why = UNKEPT_BY_PROCESSES.get((item.path.stem, getattr(item, "originalname", "")))
        if why is not None:
            item.add_marker(pytest.mark.xfail(reason=why, strict=True))


def use(name: str, place: Home, request: pytest.FixtureRequest) -> None:
    """Serve with this engine. Skips where its package is not installed."""
    engine = ENGINES[name]
    pytest.importorskip(engine.package, reason=f"{engine.package} is not installed")
    place.extra += f'[front]\nengine = "{name}"\n'
    why = UNKEPT.get(request.node.originalname)
    if name == "native" and why is not None:
        request.applymarker(pytest.mark.xfail(reason=why, strict=True))
