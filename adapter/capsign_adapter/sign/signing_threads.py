"""Signs the inputs of a group, with two threads where that helps: OpenSSL signs without the
interpreter's lock.

A batch that comes alone would leave the other core idle while it is signed. When several batches
are being signed, each stays on its own thread: the cores are busy already.
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

_IN_VAIN = frozenset({failures_pb2.REASON_TOKEN_UNAVAILABLE, failures_pb2.REASON_OVERLOADED})

PATIENCE_S = 5.0
"""How old a batch may be before a token that gives no answer is not asked for the rest of it."""


@dataclass(slots=True)
class Patience:
    """A batch's, with the token: a thousand signatures, and each waits ten seconds for one that
    hangs.
    """

    began_s: float = field(default_factory=time.monotonic)
    gone: FailureError | None = None
    """What the rest of the batch is told."""

    def failed(self, error: FailureError) -> None:
        """The token, or a turn there, was asked in vain."""
        if error.reason in _IN_VAIN and time.monotonic() - self.began_s >= PATIENCE_S:
            self.gone = error


class Signing:
    """One for a replica; any thread."""

    def __init__(self) -> None:
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="signing")
        self._alone = threading.Lock()

    def sign(self, signer: Signer, inputs: Sequence[bytes], patience: Patience) -> list[Result]:
        """A signature, or why there is none, for each input, in order."""
        if signer.custody != algorithms_pb2.CUSTODY_CLASS_ADAPTER_MEMORY:
            return _by_token(signer.sign, inputs, patience)
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
    sign: Callable[[bytes], bytes], inputs: Sequence[bytes], patience: Patience
) -> list[Result]:
    results: list[Result] = []
    for data in inputs:
        if patience.gone is not None:
            results.append(patience.gone)
            continue
        try:
            results.append(sign(data))
        except FailureError as error:
            results.append(error)
            patience.failed(error)
    return results
