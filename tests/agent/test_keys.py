"""Public keys that are kept, and when they are not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from capsign_agent.keys import Context, PublicKeys
from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import signing_pb2 as types


class Adapter:
    """Answers when told to; each answer has one key more than the one before."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[None]] = []

    async def fetch(self, _: signing_pb2.GetPublicKeysRequest) -> signing_pb2.GetPublicKeysResponse:
        mine = asyncio.get_running_loop().create_future()
        self.asked.append(mine)
        versions = len(self.asked)
        await mine
        return signing_pb2.GetPublicKeysResponse(keys=[types.PublicKey(version=n) for n in range(versions)], refresh_hint_s=60)


def context() -> Context:
    held: Any = SimpleNamespace(grant="tokens", token=b"token")
    return Context(held, alg.ALGORITHM_ED25519, types.ContextSuffix(), b"")


async def test_keys_that_were_asked_for_before_the_policy_changed_are_not_kept() -> None:
    """They came after everything was forgotten, and were then served for as long as their hint said."""
    adapter = Adapter()
    keys = PublicKeys(adapter.fetch, 4, lambda: 0.0)
    before = asyncio.create_task(keys.get(context()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    keys.clear()
    after = asyncio.create_task(keys.get(context()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(adapter.asked) == 2, "who asks after the change does not get the answer to an earlier question"
    adapter.asked[1].set_result(None)
    assert len((await after).response.keys) == 2
    adapter.asked[0].set_result(None)
    assert len((await before).response.keys) == 1
    kept = keys.cached(context())
    assert kept is not None
    assert len(kept.response.keys) == 2
    assert len((await keys.get(context())).response.keys) == 2
    assert len(adapter.asked) == 2
