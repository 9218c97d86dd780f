"""The encoding of an answer in the ledger: the `result` of an intent's row.

`docs/formats.md` ("Stored results") gives the bytes. The first is the version. Rows live for the
retention, so a release must read what the one before it wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from capsign_wire.types.v1 import failures_pb2, signing_pb2

VERSION = b"\x01"

SEALED = b"\x02"
"""The version of a result whose signatures are sealed (`keys/result_seal`)."""

_LENGTH = 2
"""Bytes of a length, big-endian."""


class StoredResultError(ValueError):
    """The bytes are not a stored result of a version that this release reads."""


def made_under(signed_by: signing_pb2.SignedBy) -> bytes:
    """Returns the encoding of a `SignedBy`, with which each of its signatures begins in a stored
    result.
    """
    return _field(signed_by.SerializeToString(deterministic=True))


def results_of(by_key: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[bytes]:
    """Returns the results of intents that were done, by the same keys: `by_key` has for each key
    `made_under`, and its sealed signatures, one for each intent.
    """
    columns = []
    before = SEALED
    for under, values in by_key:
        head = before + under
        columns.append([head + len(value).to_bytes(_LENGTH, "big") + value for value in values])
        before = b""
    return columns[0] if len(columns) == 1 else list(map(b"".join, zip(*columns, strict=True)))


def of_refusal(failure: failures_pb2.Failure) -> bytes:
    """Returns the result of an intent that was refused."""
    return VERSION + failure.SerializeToString(deterministic=True)


def signatures_of(result: bytes) -> list[tuple[bytes, bytes]]:
    """Decodes what `results_of` encoded, and what earlier releases did (`is_sealed`). Raises
    StoredResultError.
    """
    body = result[len(SEALED) :] if is_sealed(result) else _body(result)
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(body):
        middle = _end(body, at)
        end = _end(body, middle)
        found.append((body[at:middle], body[middle + _LENGTH : end]))
        at = end
    return found


def is_sealed(result: bytes) -> bool:
    """Whether the signatures of a result are sealed; an earlier release wrote those that are
    not.
    """
    return result.startswith(SEALED)


def place_of(intent_id: bytes, number: int) -> bytes:
    """Returns what the signature of this number of an intent is sealed for."""
    return intent_id + bytes((number,))


def places_of(intent_ids: Iterable[bytes], number: int) -> list[bytes]:
    """Returns `place_of` each of these intents."""
    end = bytes((number,))
    return [intent_id + end for intent_id in intent_ids]


def signed_by_of(under: bytes) -> signing_pb2.SignedBy:
    """Decodes what `made_under` encoded."""
    return signing_pb2.SignedBy.FromString(under[_LENGTH:])


def refusal_of(result: bytes) -> failures_pb2.Failure:
    """Decodes what `of_refusal` encoded. Raises StoredResultError."""
    return failures_pb2.Failure.FromString(_body(result))


def _body(result: bytes) -> bytes:
    if not result.startswith(VERSION):
        raise StoredResultError(f"a stored result of version {result[:1].hex() or 'none'}")
    return result[len(VERSION) :]


def _field(value: bytes) -> bytes:
    return len(value).to_bytes(_LENGTH, "big") + value


def _end(body: bytes, at: int) -> int:
    """Returns where the field that begins at `at` ends. Raises StoredResultError."""
    begin = at + _LENGTH
    end = begin + int.from_bytes(body[at:begin], "big")
    if end > len(body) or begin > len(body):
        raise StoredResultError("a stored result that was cut short")
    return end
