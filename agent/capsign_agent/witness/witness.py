"""Looks at the log through each adapter in turn, at a bounded rate and beside the way of a
signature, and leaves an adapter that shows another log than was seen.

Each look is one small call: the adapter's newest checkpoint, and the proof that it extends the one
seen. Several replicas may stand behind one address: the looks take its connections in turn.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import grpc
import grpc.aio
from capsign_evidence.split_view import Fault, SplitView
from capsign_wire import bounds, logs
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.journal import records
from capsign_agent.journal.journal import Journal
from capsign_agent.upstream.connection_generation import Replica, asked_to_stop
from capsign_agent.upstream.replica_connection import Stubs
from capsign_agent.witness.log_view import (
    Checkpoint,
    LogView,
    SplitViewError,
    demand_covered,
)
from capsign_agent.witness.memory import WitnessMemory
from capsign_agent.witness.told_leaves import ToldLeaves

ASK_S = 10.0
"""Seconds that a look may take."""

SPREAD_S = 2.0
"""The first look comes within so many seconds after the first connection, lest a fleet that starts
asks all at once.
"""


class Witness:
    """For one event loop."""

    def __init__(
        self,
        memory: WitnessMemory,
        replicas: Callable[[], list[Replica]],
        leave: Callable[[str], None],
        journal: Journal,
        every_s: float,
        told: ToldLeaves,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`replicas` returns the adapters in use; `leave` ends the use of the one with an address;
        `told` knows which leaves each has told of.
        Raises JournalError if what was remembered cannot be used.
        """
        self._memory = memory
        self._view: LogView = memory.view()
        self._replicas = replicas
        self._leave = leave
        self._journal = journal
        self._every_s = every_s
        self._told = told
        self._clock = clock
        self._round = 0
        self._agreed_at = clock()
        self.left = memory.distrusted()
        """Addresses that are not used any more."""

    @property
    def age_s(self) -> float:
        """Seconds since an adapter last showed a checkpoint that agrees with what was seen."""
        return self._clock() - self._agreed_at

    @property
    def size(self) -> int:
        """Leaves of the log as seen last."""
        return self._view.size

    async def watch(self, connected: asyncio.Event) -> None:
        """Look at every adapter again and again, until cancelled. `connected` is set while a
        signing stream is open.
        """
        for address in sorted(self.left):
            logs.error("log.split_view_stands", adapter=address)
        await connected.wait()
        await asyncio.sleep(random.uniform(0, min(SPREAD_S, self._every_s)))
        while True:
            await self.look()
            await asyncio.sleep(self._every_s * random.uniform(0.75, 1.25))

    async def look(self) -> None:
        """Look once through every adapter that is connected."""
        self._round += 1
        for replica in self._replicas():
            ready = [one for one in replica.connections if one.ready]
            if ready:
                await self._look_at(replica.address, ready[self._round % len(ready)].ask)

    async def _look_at(self, address: str, ask: Stubs) -> None:
        """Look through one connection. An adapter that does not answer is asked again next time."""
        answer = evidence_pb2.GetCheckpointResponse()
        proof: list[bytes] = []
        due = self._told.due(address)
        try:
            answer = await ask.evidence.GetCheckpoint(
                evidence_pb2.GetCheckpointRequest(
                    consistent_with=self._view.size, max_age_ms=int(self._every_s * 1000)
                ),
                timeout=ASK_S,
            )
            bounds.check(answer)
            proof = list(answer.consistency)
            shown = self._view.read(answer.checkpoint, answer.verifier_key)
            proof = proof or await self._proof(ask, shown)
            newer = self._view.take(shown, proof)
            demand_covered(shown, due)
        except SplitViewError as error:
            self._split(address, error, answer.checkpoint, proof, due)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, FailureError):
            # a channel that was closed before the call began raises UsageError
            logs.debug("log.not_shown", adapter=address)
        except asyncio.CancelledError:
            if asked_to_stop():
                raise
            # the connection was closed under the call
        else:
            self._agreed_at = self._clock()
            if newer:
                await asyncio.to_thread(self._memory.remember, self._view)

    async def _proof(self, ask: Stubs, shown: Checkpoint) -> list[bytes]:
        """The proof for two trees, where the first answer had none: what was shown is older than
        what was seen, or the adapter is. Raises SplitViewError if the log does not reach so far.
        """
        gap = self._view.gap(shown)
        if gap is None or not gap[0]:
            return []
        old, new = gap
        try:
            answer = await ask.evidence.GetConsistencyProof(
                evidence_pb2.GetConsistencyProofRequest(old_size=old, new_size=new), timeout=ASK_S
            )
        except grpc.aio.AioRpcError as error:
            told = FailureError.from_rpc(error)
            if told is not None and told.reason == failures_pb2.REASON_NOT_IN_LOG:
                why = f"the log shows {shown.head.size} leaves of {self._view.size}"
                raise SplitViewError(Fault.SHRUNK, why) from None
            raise
        bounds.check(answer)
        return list(answer.hashes)

    def _split(
        self, address: str, error: SplitViewError, note: bytes, proof: list[bytes], due: int
    ) -> None:
        """Leave an adapter: keep the proof, say it, and tell it to an adapter that is still
        trusted. Once: two looks may have asked it at the same time.
        """
        if address in self.left:
            return
        self.left.add(address)
        self._leave(address)
        view = self._view
        seen, key = view.seen, view.key
        told = due if error.fault is Fault.WITHHELD else 0
        split = SplitView(
            address,
            time.time_ns() // 1_000_000,
            error.fault,
            key.text() if key is not None else "",
            seen.note if seen is not None else b"",
            note,
            tuple(proof),
            told,
        )
        path = self._memory.keep(split)
        heads = split.heads(key) if key is not None else (None, None)
        logs.error(
            "log.split_view",
            adapter=address,
            fault=error.fault.name,
            kept=path,
            seen=view.size,
            shown=heads[1].size if heads[1] is not None else 0,
            told=told,
            why=str(error),
        )
        try:
            self._journal.append(records.split_view(error.fault, *heads, told))
        except FailureError as failure:
            logs.warning("journal.refused", reason=failure.row.name)
