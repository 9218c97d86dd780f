"""Intent ids: UUIDv7, RFC 9562 section 5.7, as 16 bytes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

LENGTH = 16

_RANDOM_BYTES = 10
_AT_ONCE = 256
"""Ids whose random bits are drawn in one system call. Python gives its lock away for each such
call, and where many threads sign, that costs more than everything else about an id.
"""

_drawn: list[bytes] = []
"""Random bits that no id has yet. A fork throws them away in the child, which would make the same
ids with them.
"""
os.register_at_fork(after_in_child=_drawn.clear)

_UUID7 = re.compile(rb".{6}[\x70-\x7f].[\x80-\xbf].{7}", re.DOTALL)


def new_intent_id(now_ms: int | None = None) -> bytes:
    """A fresh id: 48 bits of Unix milliseconds, then 74 random bits."""
    millis = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    value = bytearray(millis.to_bytes(6, "big") + _random())
    value[6] = (value[6] & 0x0F) | 0x70
    value[8] = (value[8] & 0x3F) | 0x80
    return bytes(value)


def _random() -> bytes:
    try:
        return _drawn.pop()  # one step, so no two threads have the same
    except IndexError:
        fresh = os.urandom(_RANDOM_BYTES * _AT_ONCE)
        pieces = [fresh[at : at + _RANDOM_BYTES] for at in range(0, len(fresh), _RANDOM_BYTES)]
        mine = pieces.pop()
        _drawn.extend(pieces)
        return mine


def is_intent_id(intent_id: bytes) -> bool:
    """Whether it is a UUIDv7 of 16 bytes."""
    return len(intent_id) == LENGTH and intent_id[6] >> 4 == 7 and intent_id[8] >> 6 == 2


def are_intent_ids(intent_ids: Iterable[bytes]) -> bool:
    """Whether each of them is one, see `is_intent_id`."""
    return all(map(_UUID7.fullmatch, intent_ids))


def millis_of(intent_id: bytes) -> int:
    """The time in an id, milliseconds since 1970. Raises FailureError INPUT_MALFORMED if it is not
    a UUIDv7.
    """
    if not is_intent_id(intent_id):
        raise FailureError(
            failures_pb2.REASON_INPUT_MALFORMED,
            "The intent id is not a UUIDv7 of 16 bytes.",
            field="intent_id",
        )
    return int.from_bytes(intent_id[:6], "big")
