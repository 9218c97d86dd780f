"""Questions of several sockets: how many of one are under way, and who waits for the adapter."""

from __future__ import annotations

import asyncio

import pytest
from capsign_agent.sign import lookup_limit
from capsign_agent.sign.lookup_limit import AT_ONCE, AT_ONCE_BESIDE_OTHERS, HALF_LIFE_S, LookupLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def asked(clock: Clock) -> LookupLimit:
    asked = LookupLimit(clock)
    asked.calls("greedy")
    return asked


async def begun(asked: LookupLimit, socket: str, count: int) -> list[asyncio.Task[None]]:
    """So many questions, each as far as it comes."""
    tasks = [asyncio.ensure_future(asked.begin(socket)) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def under_way(tasks: list[asyncio.Task[None]]) -> int:
    return sum(task.done() and not task.cancelled() for task in tasks)


async def test_a_socket_that_is_alone_has_many_questions_under_way(asked: LookupLimit) -> None:
    assert under_way(await begun(asked, "greedy", 20)) == AT_ONCE


async def test_beside_others_it_has_few_and_each_other_its_own(
    asked: LookupLimit, clock: Clock
) -> None:
    """64 verifications at once on one container's socket left its neighbour a half: eight of them
    were under way on the loop that serves both.
    """
    asked.calls("victim")
    greedy = await begun(asked, "greedy", 20)
    assert under_way(greedy) == AT_ONCE_BESIDE_OTHERS
    assert under_way(await begun(asked, "victim", 1)) == 1
    asked.end("greedy")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert under_way(greedy) == AT_ONCE_BESIDE_OTHERS + 1
    clock.now += 2.0  # the other has gone
    asked.end("greedy")
    for _ in range(3):
        await asyncio.sleep(0)
    assert under_way(greedy) == AT_ONCE_BESIDE_OTHERS + 1 + AT_ONCE


async def test_a_question_that_is_given_up_leaves_no_trace(asked: LookupLimit) -> None:
    asked.calls("victim")
    first, second, third = await begun(asked, "greedy", 3)
    second.cancel()
    await asyncio.sleep(0)
    asked.end("greedy")
    third.cancel()  # its turn has come, and it does not know yet
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert under_way(await begun(asked, "greedy", 1)) == 1
    assert first.done()


async def test_who_costs_the_adapter_more_than_its_part_waits_and_the_others_do_not(
    clock: Clock,
) -> None:
    """Public keys of new transcripts in a loop used up what the adapter does for the pod, and a
    neighbour's question was answered every seventh time.
    """
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    asked = LookupLimit(clock, sleep)
    asked.calls("greedy")
    for _ in range(10):
        await asked.ask_adapter("greedy", 1_000)
    assert not slept, "nobody else is there"
    asked.calls("victim")
    await asked.ask_adapter("victim", 500)
    assert not slept
    await asked.ask_adapter("greedy", 1_000)
    assert slept == [lookup_limit.LATER_S]
    clock.now += 20 * HALF_LIFE_S
    asked.calls("greedy")
    asked.calls("victim")
    await asked.ask_adapter("greedy", 1_000)
    assert len(slept) == 1, "what was long ago is forgotten"
