"""How the memory that the kernel leaves an agent is shared."""

from __future__ import annotations

import pytest
from capsign_agent.front import memory_shares as budget
from capsign_agent.front.memory_shares import MIB
from capsign_wire.bounds import MAX_MESSAGE_BYTES, taken_bytes

CONFIGURED, JOURNAL = 32 * MIB, 8 * MIB
"""What an injected agent is configured with."""


@pytest.mark.parametrize("sockets", [1, 2, 3, 5])
@pytest.mark.parametrize("limit", [128 * MIB, 192 * MIB, 512 * MIB])
def test_all_bounds_together_are_below_the_limit(sockets: int, limit: int) -> None:
    """At the chart's 128 MiB five sockets had 32 MiB of calls, 32 of turns, 56 of connections, and
    a place of 17 beside them.
    """
    shared = budget.share(limit, sockets, CONFIGURED, JOURNAL)
    assert shared.needed <= limit
    assert shared.connections is not None
    message = taken_bytes(MAX_MESSAGE_BYTES)
    parts = shared.call_bytes + (sockets + shared.shared_read_slots) * message
    parts += sockets * shared.unseen * (budget.UNSEEN_BYTES + shared.window)
    assert (
        parts
        + shared.connections * budget.CONNECTION_BYTES
        + budget.OWN_BYTES
        + budget.HEAVY_BYTES
        + JOURNAL
        <= limit
    )


def test_with_room_enough_everything_is_as_configured() -> None:
    ample, unlimited = (
        budget.share(512 * MIB, 5, CONFIGURED, JOURNAL),
        budget.share(None, 5, CONFIGURED, JOURNAL),
    )
    assert ample._replace(connections=None, unseen=budget.UNSEEN, needed=0) == unlimited
    assert unlimited[:2] == (3, CONFIGURED)


@pytest.mark.parametrize(("sockets", "turns"), [(1, 8), (2, 8), (5, 8), (6, 9), (16, 19)])
def test_how_many_turns_there_are_without_a_limit(sockets: int, turns: int) -> None:
    assert sockets + budget.share(None, sockets, CONFIGURED, JOURNAL).shared_read_slots == turns


@pytest.mark.parametrize("limit", [1, 64 * MIB, 128 * MIB])
def test_where_the_least_does_not_fit_each_socket_has_it_and_the_start_tells(limit: int) -> None:
    shared = budget.share(limit, 16, CONFIGURED, JOURNAL)
    assert shared.needed > limit
    assert shared.shared_read_slots == 1
    assert shared.call_bytes == 16 * budget.LEAST_CALL_BYTES
    assert shared.connections is not None
    assert shared.connections >= 16 * budget.LEAST_CONNECTIONS
    assert shared.streams >= budget.LEAST_STREAMS
    assert shared.unseen >= budget.LEAST_UNSEEN


def test_an_agent_of_the_chart_takes_fewer_calls_at_once_on_a_connection() -> None:
    shared = budget.share(128 * MIB, 5, CONFIGURED, JOURNAL)
    assert (shared.streams, shared.window) == (32, 4096)


def test_a_journal_that_is_larger_than_its_part_is_on_a_disk() -> None:
    assert budget.share(256 * MIB, 1, CONFIGURED, 64 * MIB) == budget.share(
        256 * MIB, 1, CONFIGURED, 32 * MIB
    )
