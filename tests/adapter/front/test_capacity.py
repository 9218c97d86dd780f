"""How memory and descriptors are shared among the listeners, and when the adapter does not
start.
"""

from __future__ import annotations

import resource

import pytest
from capsign_adapter.front import capacity
from capsign_adapter.front.public_server import CONNECTIONS
from capsign_wire.settings import SettingsError

MIB = capacity.MIB


@pytest.mark.parametrize("descriptors", [256, 1024, 4096, 20_000, 1 << 20])
@pytest.mark.parametrize("places", [4, 32, 512, 4096])
def test_all_connections_together_leave_descriptors_for_the_process(descriptors, places):
    shared = capacity.connections(descriptors, places)
    assert min(shared) >= 8
    kept = descriptors - sum(shared)
    assert kept >= min(descriptors // 2, capacity.OWN_DESCRIPTORS + 2 * places)


def test_with_a_thousand_descriptors_agents_have_most_of_them():
    shared = capacity.connections(1024, 32)
    assert shared.main > 400
    assert shared.admin > 64


@pytest.mark.parametrize(
    ("before", "taken"),
    [
        ((1024, 4096), 4096),
        ((1024, 1 << 30), capacity.ENOUGH_DESCRIPTORS),
        ((1024, resource.RLIM_INFINITY), capacity.ENOUGH_DESCRIPTORS),
        ((1 << 20, 1 << 20), 1 << 20),
        ((4096, 4096), 4096),
    ],
)
def test_as_many_descriptors_are_taken_as_can_be_used(monkeypatch, before, taken):
    """Where the system allowed a billion, a billion was taken."""
    limits = [before]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    assert capacity.raise_descriptors() == taken
    assert limits[-1] == (taken, before[1])
    most = capacity.connections(capacity.ENOUGH_DESCRIPTORS, 4096)
    assert most == capacity.connections(1 << 30, 4096), "more would be of no use"


def test_requests_that_would_not_fit_are_said_at_the_start():
    capacity.demand_memory(512 * MIB, 512, 256 * 1024)  # the chart's
    capacity.demand_memory(512 * MIB, 512, 256 * 1024, CONNECTIONS)  # with public keys
    capacity.demand_memory(None, 4096, 4 * MIB)
    with pytest.raises(SettingsError, match="limited to 460 MiB"):
        capacity.demand_memory(460 * MIB, 512, 256 * 1024, CONNECTIONS)
    capacity.demand_memory(460 * MIB, 512, 256 * 1024)
    with pytest.raises(
        SettingsError, match=r"`listen.streams` is 512.* 800 MiB.* limited to 512 MiB"
    ) as caught:
        capacity.demand_memory(512 * MIB, 512, MIB)
    assert caught.value.key == "listen.streams"
