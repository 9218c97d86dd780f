"""Checks the arguments of a call and brings them into the form that is sent. Raises Refused before
anything leaves the process.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

from capsign_wire.advice import Given, advice_of
from capsign_wire.algorithms import BY_NAME, AlgorithmRow
from capsign_wire.bounds import MAX_BATCH_ITEMS
from capsign_wire.failures import REASONS, FailureError
from capsign_wire.intents import millis_of, new_intent_id
from capsign_wire.types.v1 import algorithms_pb2
from capsign_wire.types.v1 import failures_pb2 as reasons

from capsign.batch_scheduler import MAX_BYTES
from capsign.errors import Refused
from capsign.handle_selector import HandleSelector
from capsign.jobs import ITEM_OVERHEAD, Item
from capsign.results import KeyHandle

MAX_MESSAGE = 65536
"""Longest message that goes to the agent, bytes (agent.proto)."""

HASHES = {
    algorithms_pb2.UPSTREAM_SHA256: hashlib.sha256,
    algorithms_pb2.UPSTREAM_SHA384: hashlib.sha384,
}
"""Algorithms whose digest needs no key. A message too long to send is hashed here for them."""

Buffer: TypeAlias = bytes | bytearray | memoryview
IntentId: TypeAlias = bytes | uuid.UUID


def octets(value: Buffer) -> bytes:
    """The bytes of a buffer. Raises TypeError for anything else, because `bytes(32)` would be 32
    zeros.
    """
    if isinstance(value, str):
        raise TypeError("give bytes; encode the text first")
    return value if isinstance(value, bytes) else memoryview(value).tobytes()


def _refused(reason: reasons.Reason.ValueType, text: str, field: str) -> Refused:
    row = REASONS[reason]
    advice = advice_of(reason, Given.MESSAGE, row.advice)
    return Refused(row.name, text, advice=advice, field=field)


def selector_of(
    purpose: str | None,
    grant: str | None,
    handle: str | KeyHandle | None,
    algorithm: str | None,
    protocol: str = "",
    role: str = "",
    protocol_version: str = "",
    transcript: Buffer = b"",
) -> HandleSelector:
    """The selector of a call; without an algorithm it is left open. A KeyHandle is replaced by its
    grant and purpose, so that it still works after the agent has given it another id.
    """
    if isinstance(handle, KeyHandle):
        purpose, grant, handle = purpose or handle.purpose, handle.grant, None
    stated = (purpose, grant, handle, algorithm or "", protocol, role, protocol_version)
    given = octets(transcript)
    return HandleSelector(*stated, given) if given else _without_transcript(*stated)


_without_transcript = lru_cache(maxsize=256)(HandleSelector)
"""Applications state few of them, again and again."""


def algorithm_row(name: str) -> AlgorithmRow:
    row = BY_NAME.get(name)
    if row is None:
        text = f"There is no algorithm {name!r}; there are {', '.join(BY_NAME)}."
        raise _refused(reasons.REASON_INPUT_MALFORMED, text, "algorithm")
    return row


def row_or_open(name: str | None) -> AlgorithmRow | None:
    """The row of the algorithm that a call names; None if it leaves it open. Raises Refused."""
    return None if name is None else algorithm_row(name)


def intent(given: IntentId | None) -> bytes:
    """The intent id to use: the one given, or a new one."""
    if given is None:
        return new_intent_id()
    value = given.bytes if isinstance(given, uuid.UUID) else octets(given)
    try:
        millis_of(value)
    except FailureError as error:
        raise _refused(error.reason, error.detail, error.field) from None
    return value


def payload(
    row: AlgorithmRow | None, message: Buffer | None, digest: Buffer | None
) -> tuple[bytes, bool]:
    """The bytes to send, and whether they are a digest. Without a row the algorithm is open."""
    if (message is None) == (digest is None):
        raise _refused(
            reasons.REASON_INPUT_MALFORMED, "Give a message or digest=, one of the two.", "message"
        )
    if digest is not None:
        data = octets(digest)
        if row is None:
            text = "A call that leaves the algorithm open gives the message, not a digest."
            raise _refused(reasons.REASON_INPUT_MALFORMED, text, "digest")
        if not row.takes_digest:
            text = f"{row.name} signs the message itself, not a digest."
            raise _refused(reasons.REASON_INPUT_MALFORMED, text, "digest")
        if len(data) != row.max_input:
            text = f"The digest is {len(data)} bytes long; {row.name} takes {row.max_input}."
            raise _refused(reasons.REASON_INPUT_MALFORMED, text, "digest")
        return data, True
    assert message is not None
    data = octets(message)
    if len(data) <= MAX_MESSAGE:
        return data, False
    hashing = HASHES.get(row.upstream) if row is not None else None
    if hashing is None:
        name = "a call that leaves the algorithm open" if row is None else row.name
        text = f"The message is {len(data)} bytes long; {name} takes at most {MAX_MESSAGE}."
        raise _refused(reasons.REASON_INPUT_TOO_LARGE, text, "message")
    return hashing(data).digest(), True


def item(
    row: AlgorithmRow | None,
    message: Buffer | None,
    digest: Buffer | None,
    intent_id: IntentId | None,
) -> Item:
    data, is_digest = payload(row, message, digest)
    return Item(intent(intent_id), data, is_digest)


def split(items: Sequence[Item]) -> Iterator[range]:
    """Ranges of items, each of which fits into one message."""
    start = size = 0
    for index, entry in enumerate(items):
        weight = len(entry.data) + ITEM_OVERHEAD
        if index - start >= MAX_BATCH_ITEMS or (size + weight > MAX_BYTES and index > start):
            yield range(start, index)
            start, size = index, 0
        size += weight
    if start < len(items):
        yield range(start, len(items))
