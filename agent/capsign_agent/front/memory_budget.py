"""The memory that the calls of one socket may hold: requests that are worked on, and answers that
nobody has taken yet.

A call takes its estimated size, with the signatures that it will get, when it arrives, and gives it
back once its answer is on its way out. What an answer holds beyond that (public keys, handles) is
taken once the answer is there. So a slow adapter, or an application that does not read, costs a
known number of bytes at most.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.bounds import Unparsed
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

HEAVY_BYTES = 17 * 1024 * 1024
"""Bytes that the largest possible call takes, rounded up. A call that is larger than its socket's
share may use this one extra allowance, which all sockets share.
"""

CALL_BYTES = 12 * 1024
"""Bytes that a call takes beside its content, measured: gRPC's state, a task, futures, an answer
without signatures.
"""

RPC_BYTES = 48 * 1024
"""Bytes that an RPC may take before its first message, and beside its calls: 24 KiB for a stream
without calls, measured; the window that HTTP/2 gives it, 16 KiB; metadata of the usual size.
"""

ITEM_BYTES = 512
"""Bytes that an item takes beside its input and its signature: its intent id, its records, its
share of three messages.
"""

COPIES = 3
"""How many copies of an input that is sent upstream unchanged are in memory: in its request, in the
call that waits for the answer, and in the message upstream.
"""

ATTESTATION_BYTES = 4096
"""Bytes of a subkey attestation. Under a transcript each item may have one of its own."""

BOTH_SIGNATURES = 2 * max(row.max_signature for row in ALGORITHMS.values())
"""Most bytes of the signatures of a call that leaves its algorithm open."""


def weight(request: Any) -> int:
    """Bytes that a request and its answer will hold, estimated."""
    kind = type(request)
    if kind is Unparsed:
        return CALL_BYTES
    content: int = request.ByteSize()
    weighed = CALL_BYTES + content
    as_it_is = kind is agent_pb2.VerifyRequest
    if kind is agent_pb2.SignRequest:
        each, as_it_is = _item(request)
        weighed += each
    elif kind in _GROUPS:
        for group in request.groups:
            each, goes_as_it_is = _item(group)
            weighed += len(group.items) * each
            as_it_is = as_it_is or goes_as_it_is
    return weighed + (COPIES - 1) * content if as_it_is else weighed


_GROUPS = (agent_pb2.SignStreamRequest, agent_pb2.SignBatchRequest)


def surplus(answer: Any) -> int:
    """Bytes that an answer holds beyond what its request let expect: a key may have many versions,
    each with an attestation.
    """
    return int(answer.ByteSize()) if type(answer) in _LARGE_ANSWERS else 0


_LARGE_ANSWERS = (
    agent_pb2.GetPublicKeysResponse,
    agent_pb2.GetJwksResponse,
    agent_pb2.ListHandlesResponse,
)


def _item(asked: agent_pb2.SignGroup | agent_pb2.SignRequest) -> tuple[int, bool]:
    """What an item takes beside its input, and whether its input goes upstream unchanged."""
    row = ALGORITHMS.get(asked.algorithm)  # bounds were not looked at yet
    signature = row.max_signature if row is not None else 0
    as_it_is = row is not None and row.upstream == algorithms_pb2.UPSTREAM_MESSAGE
    if asked.open_algorithm:  # it may become any
        signature, as_it_is = BOTH_SIGNATURES, True
    attested = ATTESTATION_BYTES if asked.context.transcript else 0
    return ITEM_BYTES + signature + attested, as_it_is


class LargeCallSlot:
    """The one allowance for a call that is larger than its socket's share. For all sockets."""

    def __init__(self) -> None:
        self.free = True


class MemoryBudget:
    """The memory of one socket's calls. For one event loop."""

    def __init__(self, most: int, metrics: Metrics, slot: LargeCallSlot | None = None) -> None:
        """`most` is in bytes."""
        self._most = most
        self._metrics = metrics
        self._slot = slot if slot is not None else LargeCallSlot()
        self.held = 0
        """Bytes that are taken."""
        self._in_place = 0
        """Bytes of these that are in the allowance for a large call."""
        self.share = most // 4
        """Bytes that one stream may hold before nothing more is read from it, so that a stream that
        is stuck leaves memory for others.
        """

    @property
    def used(self) -> float:
        """The fraction that is taken; above 1 while a large call has the extra allowance."""
        return self.held / self._most

    def acquire(self, weighed: int) -> int:
        """Take so many bytes; returns the same number, for `release`. A call of more than half the
        budget may use the allowance for large calls. Raises FailureError OVERLOADED if it does not
        fit; then nothing was taken.
        """
        fits = self.held - self._in_place + weighed <= self._most
        if not fits and weighed * 2 > self._most and weighed <= HEAVY_BYTES and self._slot.free:
            self._slot.free = False
            self._in_place = weighed
            fits = True
        if not fits:
            self._metrics.observe_calls(failures_pb2.REASON_OVERLOADED)
            detail = "The calls of this socket hold as much memory as they may."
            raise FailureError(failures_pb2.REASON_OVERLOADED, detail, retry_after_ms=50)
        self.held += weighed
        return weighed

    def release(self, weighed: int) -> None:
        """Give back what `acquire` took."""
        self.held -= weighed
        # a stream gives all of its calls at once
        if self._in_place and (weighed == self._in_place or self.held < self._in_place):
            self._in_place = 0
            self._slot.free = True


class RpcMemory:
    """What one RPC holds of its socket's memory, until it is over."""

    __slots__ = ("_budget", "_taken")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._taken: list[int] = []

    def take(self, weighed: int) -> None:
        """Take so many bytes more. Raises FailureError OVERLOADED."""
        self._taken.append(self._budget.acquire(weighed))

    def give_back(self, _: object = None) -> None:
        """The RPC is over."""
        for weighed in self._taken:
            self._budget.release(weighed)


RPC_MEMORY: ContextVar[RpcMemory] = ContextVar("RPC_MEMORY")
"""What the current RPC holds."""
