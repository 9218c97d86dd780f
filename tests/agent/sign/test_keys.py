"""Public keys: what is kept and when it is not, and how many questions there may be."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from capsign_agent.handles.held_handle import HeldHandle
from capsign_agent.handles.rate_limit import RateLimit
from capsign_agent.handles.scope import HandleScope
from capsign_agent.sign.fetch_cache import MOST_FETCHES
from capsign_agent.sign.key_sets import MOST_BYTES, KeySets
from capsign_agent.sign.public_keys import PublicKeys
from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import signing_pb2 as types

HELD = HeldHandle("app", "tokens", RateLimit(0, 0, 0.0))


class Adapter:
    """Answers when told to; each answer has one key more than the one before."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[None]] = []

    async def fetch(self, _: signing_pb2.GetPublicKeysRequest) -> signing_pb2.GetPublicKeysResponse:
        mine = asyncio.get_running_loop().create_future()
        self.asked.append(mine)
        versions = len(self.asked)
        await mine
        return signing_pb2.GetPublicKeysResponse(
            keys=[types.PublicKey(version=n) for n in range(versions)], refresh_hint_s=60
        )


def context(number: int = 0) -> HandleScope:
    suffix = types.ContextSuffix(transcript=number.to_bytes(32, "big"))
    return HandleScope(HELD, alg.ALGORITHM_ES256, suffix, suffix.SerializeToString())


async def test_keys_that_were_asked_for_before_the_policy_changed_are_not_kept() -> None:
    """They came after everything was forgotten, and were then served for as long as their hint
    said.
    """
    adapter = Adapter()
    keys = PublicKeys(adapter.fetch, 4, lambda: 0.0)
    before = asyncio.create_task(keys.get(context()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    keys.clear()
    after = asyncio.create_task(keys.get(context()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(adapter.asked) == 2, (
        "who asks after the change does not get the answer to an earlier question"
    )
    adapter.asked[1].set_result(None)
    assert len((await after).response.keys) == 2
    adapter.asked[0].set_result(None)
    assert len((await before).response.keys) == 1
    kept = keys.cached(context())
    assert kept is not None
    assert len(kept.response.keys) == 2
    assert len((await keys.get(context())).response.keys) == 2
    assert len(adapter.asked) == 2


async def test_questions_whose_askers_have_left_are_bounded() -> None:
    """Each context is another question, which goes on without its asker: who asked and left made as
    many as it liked.
    """
    adapter = Adapter()
    keys = PublicKeys(adapter.fetch, 1024, lambda: 0.0)
    for number in range(MOST_FETCHES):
        asker = asyncio.create_task(keys.get(context(number)))
        await asyncio.sleep(0)
        asker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asker
    with pytest.raises(FailureError, match="OVERLOADED"):
        await keys.get(context(MOST_FETCHES))
    joined = asyncio.create_task(keys.get(context(0)))  # one that is under way takes any number
    await asyncio.sleep(0)
    for question in adapter.asked:
        question.set_result(None)
    assert (await joined).fetched == 0.0
    last = asyncio.create_task(keys.get(context(MOST_FETCHES)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    adapter.asked[-1].set_result(None)
    assert (await last).fetched == 0.0
    assert len(adapter.asked) == MOST_FETCHES + 1


class Sets:
    """Answers with sets of so many bytes, to be kept for a minute."""

    def __init__(self, size: int = 2) -> None:
        self.size, self.now, self.asked = size, 0.0, 0

    async def fetch(self, _: signing_pb2.GetJwksRequest) -> signing_pb2.GetJwksResponse:
        self.asked += 1
        self.now += 1  # the way there and back
        return signing_pb2.GetJwksResponse(key_set=bytes(self.size), max_age_s=60)


async def test_a_set_is_kept_for_its_max_age_from_when_it_was_asked_for() -> None:
    adapter = Sets()
    sets = KeySets(adapter.fetch, lambda: adapter.now)
    known = await sets.get(context())
    adapter.now = 59.9
    assert await sets.get(context()) is known
    adapter.now = 60.0
    assert await sets.get(context()) is not known
    assert adapter.asked == 2


async def test_a_set_that_is_large_is_given_and_not_kept() -> None:
    adapter = Sets(MOST_BYTES + 1)
    sets = KeySets(adapter.fetch, lambda: adapter.now)
    assert len((await sets.get(context())).response.key_set) == MOST_BYTES + 1
    await sets.get(context())
    assert adapter.asked == 2
