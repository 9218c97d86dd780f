"""Which leaves an adapter said its signatures have, and since when its checkpoints must cover them.

A frozen log is consistent with itself for ever. What shows it is what it does not have: a leaf that
the same adapter told this agent of, longer ago than a checkpoint may be old (decision 61). Each
adapter is held to its own word alone: a number is no signature, and one that lies about numbers
must not make the agent leave the others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from capsign_wire.adapter.v1 import signing_pb2

STEPS = 8
"""Leaves of so much of that time are remembered as one, the highest."""


class ToldLeaves:
    """For one event loop. A few numbers for each adapter, however much is signed."""

    def __init__(self, after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`after_s`: seconds after which a leaf that was told of must be covered."""
        self._after_s = after_s
        self._clock = clock
        self._told: dict[str, deque[list[float]]] = {}
        """By address: when the first and the last of some leaves was told, and how many leaves a
        tree must have to hold them.
        """
        self._due: dict[str, int] = {}

    def answered(self, address: str, response: signing_pb2.SignResponse) -> None:
        """An adapter answered a batch: remember the leaf of its last signature."""
        if not response.groups or not response.groups[-1].items:
            return
        item = response.groups[-1].items[-1]
        if not item.signatures:
            return
        now, size = self._clock(), item.leaf_index + 1
        told = self._told.setdefault(address, deque())
        if told and now - told[-1][0] < self._after_s / STEPS:
            told[-1][1:] = now, max(told[-1][2], size)
        else:
            self.due(address)
            told.append([now, now, size])

    def due(self, address: str) -> int:
        """How many leaves each checkpoint that this adapter makes from now on must have; 0: not
        known.
        """
        told, before = self._told.get(address), self._clock() - self._after_s
        while told and told[0][1] <= before:
            self._due[address] = max(self._due.get(address, 0), int(told.popleft()[2]))
        return self._due.get(address, 0)
