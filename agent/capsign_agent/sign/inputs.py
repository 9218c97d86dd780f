"""Step 6: makes the input of each item that goes upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from capsign_wire import intents
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.scope import HandleScope
from capsign_agent.sign import hashing
from capsign_agent.sign.group_work import GroupWork
from capsign_agent.sign.public_keys import KeyInput, Known, PublicKeys

SLICE = 64
"""Items that are hashed in one go, before other sockets' calls get their turn."""


class Inputs:
    """For all sockets. For one event loop."""

    def __init__(self, keys: PublicKeys, crowded: Callable[[], bool]) -> None:
        """`crowded` says whether more than one socket signs now."""
        self._keys = keys
        self._crowded = crowded

    async def prepare(self, work: GroupWork, deadline: float) -> None:
        """Make the inputs of the items that go on, and check their intent ids. A malformed item
        fails alone. Raises FailureError if the whole group fails.
        """
        items = work.items
        to_input = hashing.hasher(work.row) if work.row is not None else None
        if to_input is None:
            known = await self._signing(work, deadline)
            await self._made(work, known, work.positions)
            return
        row = work.row
        assert row is not None
        passed: list[int] = []
        slice_ends = SLICE
        for position in work.positions:
            if position >= slice_ends:
                slice_ends = position + SLICE
                if self._crowded():
                    await asyncio.sleep(0)  # the loop's turn is for all sockets
            item = items[position]
            intent_id, kind = item.intent_id, item.WhichOneof("input")
            # a message with a good id needs no other look
            if kind == "message" and intents.is_intent_id(intent_id):
                data = to_input(item.message)  # 6
            else:
                try:
                    data = _odd_input(row, item, kind, to_input)
                except FailureError as error:
                    work.refuse((position,), error)
                    continue
            passed.append(position)
            work.intents.append(intent_id)
            work.inputs.append(data)
        work.positions = passed

    async def prepare_anew(self, work: GroupWork, deadline: float) -> None:
        """Make the inputs once more, for the keys that sign now, of the items that were refused
        because others sign by now. Raises FailureError if those keys do not come in time.
        """
        assert work.scope is not None
        stale = self._keys.cached(work.scope)
        newer_than = stale.fetched if stale is not None else -1.0
        known = await self._fetched(work.scope, deadline, newer_than)
        items = work.items
        again = [at for at in work.waiting_for_new_key() if items[at].HasField("message")]
        work.intents = []
        await self._made(work, known, again)

    async def _signing(self, work: GroupWork, deadline: float) -> Known:
        """The public keys that tell how the inputs are made."""
        assert work.scope is not None
        return self._keys.cached(work.scope) or await self._fetched(work.scope, deadline)

    async def _made(self, work: GroupWork, known: Known, positions: Sequence[int]) -> None:
        """Make the inputs of these items for the keys that sign now (6)."""
        first, second = known.inputs()
        work.kid, work.second_kid = first.kid, second.kid if second is not None else ""
        work.inputs, work.seconds, work.digests = [], [], []
        items, row, passed = work.items, work.row, []
        slice_ends = SLICE
        for position in positions:
            if position >= slice_ends and self._crowded():
                slice_ends = position + SLICE
                await asyncio.sleep(0)
            item = items[position]
            try:
                data = _for_key(item, row, first)
            except FailureError as error:
                work.refuse((position,), error)
                continue
            passed.append(position)
            work.intents.append(item.intent_id)
            work.inputs.append(data)
            if second is not None:
                work.seconds.append(second.of(item.message) if item.HasField("message") else b"")
            if row is None:
                work.digests.append(hashing.sha256(item.message))
        if second is not None and not all(map(bytes.__len__, work.seconds)):
            work.second_kid, work.seconds = "", []  # an item that is a digest has no second input
        work.positions = passed

    async def _fetched(
        self, scope: HandleScope, deadline: float, newer_than: float = -1.0
    ) -> Known:
        """The public keys of a scope, before the deadline. Raises FailureError; nothing was sent
        then.
        """
        try:
            async with asyncio.timeout_at(deadline):
                return await self._keys.get(scope, newer_than=newer_than)
        except TimeoutError:
            raise FailureError(
                failures_pb2.REASON_UPSTREAM_UNREACHABLE,
                "The public key did not come in time.",
                retry_after_ms=500,
            ) from None


def _for_key(item: agent_pb2.SignItem, row: AlgorithmRow | None, key: KeyInput) -> bytes:
    """The input of an item for the key that signs. Without a row the algorithm is open: a digest
    would tell which. Raises INPUT_MALFORMED.
    """
    if row is not None:
        return _odd_input(row, item, item.WhichOneof("input"), key.of)
    intents.millis_of(item.intent_id)
    if not item.HasField("message"):
        raise FailureError(
            failures_pb2.REASON_INPUT_MALFORMED,
            "A call that leaves the algorithm open gives the message, not a digest.",
            field="input",
        )
    return key.of(item.message)


def _odd_input(
    row: AlgorithmRow,
    item: agent_pb2.SignItem,
    kind: str | None,
    to_input: Callable[[bytes], bytes],
) -> bytes:
    """The input of an item that is a digest, or is malformed. Raises INPUT_MALFORMED."""
    intents.millis_of(item.intent_id)
    if kind is None:
        raise FailureError(
            failures_pb2.REASON_INPUT_MALFORMED,
            "The item has neither message nor digest.",
            field="input",
        )
    if kind == "message":
        return to_input(item.message)
    hashing.check_digest(row, item.digest)
    return item.digest
