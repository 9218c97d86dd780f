"""When an agent gives memory back to the kernel."""

from __future__ import annotations

from capsign_agent.process import GIVE_BACK_AT_LEAST_S, GivingBack

MIB = 1 << 20


def test_it_is_tried_again_where_it_came_too_early() -> None:
    """It was tried once, when calls were over: before gRPC had freed what they lay in. 150 MiB
    stayed for good.
    """
    giving = GivingBack()
    assert not giving.due(0.0, 50 * MIB)
    assert giving.due(2.0, 200 * MIB)
    giving.given(2.0, 200 * MIB, 199 * MIB)
    assert not giving.due(3.0, 199 * MIB)
    assert giving.due(4.0, 199 * MIB)
    giving.given(4.0, 199 * MIB, 52 * MIB)
    assert not giving.due(10.0, 55 * MIB)


def test_where_it_gives_nothing_it_is_tried_rarely_until_something_changes() -> None:
    giving = GivingBack()
    giving.due(0.0, 50 * MIB)
    tried = []
    for now in range(1, 200):
        if giving.due(now, 100 * MIB):
            tried.append(now)
            giving.given(now, 100 * MIB, 100 * MIB)
    assert len(tried) < 12
    assert tried[-1] - tried[-2] == GIVE_BACK_AT_LEAST_S
    assert giving.due(tried[-1] + 1.0, 100 * MIB) is False
    giving.due(tried[-1] + 1.0, 120 * MIB)
    assert giving.due(tried[-1] + 2.0, 120 * MIB)
