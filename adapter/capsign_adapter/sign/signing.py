"""Signs the inputs of a group, with two threads where that helps: OpenSSL signs without the interpreter's lock.

A batch that comes alone would leave the other core idle while it is signed. When several batches are being signed, each stays on
its own thread: the cores are busy already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2

from capsign_adapter.keys.keyring import Signer

WORTH_TWO = 24
"""Fewest inputs for which waking a second thread costs less than it saves."""

_LOCK_FREE = frozenset({algorithms_pb2.ALGORITHM_ED25519, algorithms_pb2.ALGORITHM_ES256, algorithms_pb2.ALGORITHM_ML_DSA_65})
"""Algorithms that release the interpreter's lock while they sign; an HMAC does not, and a token has one thread."""

Result = bytes | FailureError


class Signing:
    """One for a replica; any thread."""

    def __init__(self) -> None:
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="signing")
        self._alone = threading.Lock()

    def sign(self, signer: Signer, inputs: Sequence[bytes]) -> list[Result]:
        """A signature, or why there is none, for each input, in order."""
        in_memory = signer.custody == algorithms_pb2.CUSTODY_CLASS_ADAPTER_MEMORY and signer.algorithm in _LOCK_FREE
        if len(inputs) < WORTH_TWO or not in_memory or not self._alone.acquire(blocking=False):
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
