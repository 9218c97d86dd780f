"""Signs the inputs of a group, on two threads where that is faster: OpenSSL signs without holding
the interpreter lock.

A single batch would otherwise leave the second core idle. While several batches are being signed,
each stays on its own thread, since the cores are busy already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

from capsign_adapter.algorithms.table import TABLE
from capsign_adapter.keys.keyring import Signer

WORTH_TWO = 24
"""Fewest inputs for which waking a second thread costs less than it saves."""

_LOCK_FREE = frozenset(
    number for number, row in TABLE.items() if row.derived is not None and row.derived.lock_free
)

Result = bytes | FailureError

_NO_ANSWER = frozenset({failures_pb2.REASON_TOKEN_UNAVAILABLE, failures_pb2.REASON_OVERLOADED})

GIVE_UP_S = 5.0
"""Age of a batch, seconds, from which a token that gives no answer is not asked for the rest."""


@dataclass(slots=True)
class TokenBreaker:
    """Circuit breaker of one batch: each call of a token that hangs may wait for ten seconds, and a
    batch may have a thousand.
    """

    began_s: float = field(default_factory=time.monotonic)
    error: FailureError | None = None
    """Set when it has opened: the failure of the rest of the batch."""

    def failed(self, error: FailureError) -> None:
        """A call of the token failed, or got no turn. Opens if the batch is old enough."""
        if error.reason in _NO_ANSWER and time.monotonic() - self.began_s >= GIVE_UP_S:
            self.error = error


class Signing:
    """One for a replica; any thread."""

    def __init__(self) -> None:
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="signing")
        self._alone = threading.Lock()

    def sign(self, signer: Signer, inputs: Sequence[bytes], breaker: TokenBreaker) -> list[Result]:
        """Returns a signature, or the failure, for each input, in order."""
        if signer.custody != algorithms_pb2.CUSTODY_CLASS_ADAPTER_MEMORY:
            return _by_token(signer.sign, inputs, breaker)
        if (
            len(inputs) < WORTH_TWO
            or signer.algorithm not in _LOCK_FREE
            or not self._alone.acquire(blocking=False)
        ):
            return _part(signer.sign, inputs)
        try:
            half = len(inputs) // 2
            rest = self._helper.submit(_part, signer.sign, inputs[half:])
            return _part(signer.sign, inputs[:half]) + rest.result()
        finally:
            self._alone.release()


def _part(sign: Callable[[bytes], bytes], inputs: Sequence[bytes]) -> list[Result]:
    results: list[Result] = []
    for data in inputs:
        try:
            results.append(sign(data))
        except FailureError as error:
            results.append(error)
    return results


def _by_token(
    sign: Callable[[bytes], bytes], inputs: Sequence[bytes], breaker: TokenBreaker
) -> list[Result]:
    results: list[Result] = []
    for data in inputs:
        if breaker.error is not None:
            results.append(breaker.error)
            continue
        try:
            results.append(sign(data))
        except FailureError as error:
            results.append(error)
            breaker.failed(error)
    return results
