"""The memory that the calls of one socket may hold: requests at work, and answers that nobody has
read yet.

Every call is weighed when it comes, with the signatures that it will get, and put down again when
its answer is on its way out. What an answer tells of keys and handles is weighed once it is there.
So an adapter that is slow, or an application that does not read, costs a known number of bytes and
not the memory limit of the pod.
"""

from __future__ import annotations

from typing import Any

from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.bounds import Unparsed
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2

HEAVY_BYTES = 17 * 1024 * 1024
"""What the heaviest call takes, rounded up. One that is too heavy for its socket's room has this
place, of which there is one.
"""

CALL_BYTES = 12 * 1024
"""What a call takes beside its content, measured: gRPC's own state of it, a task, futures, an
answer without signatures.
"""

RPC_BYTES = 48 * 1024
"""What an RPC may take before its first message, and beside its calls: 24 KiB for a stream on which
nothing is asked, measured; the window that HTTP/2 gives it, 16 KiB; metadata of the usual size.
"""

ITEM_BYTES = 512
"""What an item takes beside its input and its signature: its intent, its records, its place in
three messages.
"""

COPIES = 3
"""How often an input that goes upstream as it is lies in memory: in its request, in what waits for
the answer, and on its way.
"""

ATTESTATION_BYTES = 4096
"""What the attestation of a subkey takes; with a transcript, each item may have one of its own."""


def weight(request: Any) -> int:
    """What a request and its answer will hold, bytes."""
    if isinstance(request, Unparsed):
        return CALL_BYTES
    content = int(request.ByteSize())
    weighed = CALL_BYTES + content
    if isinstance(request, (agent_pb2.SignStreamRequest, agent_pb2.SignBatchRequest)):
        weighed += sum(len(group.items) * _item(group) for group in request.groups)
        as_it_is = any(_goes_as_it_is(group) for group in request.groups)
    elif isinstance(request, agent_pb2.SignRequest):
        weighed += _item(request)
        as_it_is = _goes_as_it_is(request)
    else:
        as_it_is = isinstance(request, agent_pb2.VerifyRequest)
    return weighed + (COPIES - 1) * content if as_it_is else weighed


def _goes_as_it_is(asked: agent_pb2.SignGroup | agent_pb2.SignRequest) -> bool:
    row = ALGORITHMS.get(asked.algorithm)
    return row is not None and not row.takes_digest


def surplus(answer: Any) -> int:
    """What an answer holds that its request did not tell, bytes: a key may have many versions, each
    with an attestation.
    """
    told = (agent_pb2.GetPublicKeysResponse, agent_pb2.ListHandlesResponse)
    return int(answer.ByteSize()) if isinstance(answer, told) else 0


def _item(asked: agent_pb2.SignGroup | agent_pb2.SignRequest) -> int:
    row = ALGORITHMS.get(asked.algorithm)  # bounds were not looked at yet
    signature = row.max_signature if row is not None else 0
    return ITEM_BYTES + signature + (ATTESTATION_BYTES if asked.context.transcript else 0)


class LargeCallSlot:
    """The place for one call that is too heavy for its socket's room. For all sockets."""

    def __init__(self) -> None:
        self.free = True


class MemoryBudget:
    """What one socket's calls may hold. For one event loop."""

    def __init__(self, most: int, metrics: Metrics, slot: LargeCallSlot | None = None) -> None:
        """`most`: bytes."""
        self._most = most
        self._metrics = metrics
        self._slot = slot if slot is not None else LargeCallSlot()
        self.held = 0
        """Bytes."""
        self._in_place = 0
        """Of them in the place for a heavy call."""
        self.share = most // 4
        """What one stream may hold before nothing more is read from it, bytes: one that is stuck
        must leave room for others.
        """

    @property
    def used(self) -> float:
        """The share that is taken; above 1 where one call alone is larger."""
        return self.held / self._most

    def acquire(self, weighed: int) -> int:
        """Returns the same, to be given back. Raises FailureError OVERLOADED if it does not fit:
        nothing was taken then.

        What takes more than half of the room may have the place for one heavy call.
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
        """What was taken is free again."""
        self.held -= weighed
        # a stream gives all of its calls at once
        if self._in_place and (weighed == self._in_place or self.held < self._in_place):
            self._in_place = 0
            self._slot.free = True
