"""The fields of entries: their bounds, and each checked and encoded (`docs/formats.md`)."""

from __future__ import annotations

import re
import struct

from capsign_wire.failures import REASONS

from capsign_evidence.leaf_kinds import Kind

VERSION = 1
"""First byte of every entry."""

MAX_ENTRY_LEN = 1024
"""No entry is longer, in bytes; the longest possible one has 862."""

HASH_LEN = 32
INTENT_LEN = 16
SERIAL_LEN = 16
BOOT_LEN = 16
POD_LEN = 16
"""Bytes of a pod's uid, which is a UUID (RFC 9562)."""
MAX_ID_LEN = 255
"""Longest SPIFFE ID and longest target of an administrative act, bytes."""
MAX_NAME_LEN = 64

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+", re.ASCII)
_TARGET = re.compile(rf"\*|{NAME.pattern}(/{NAME.pattern}){{0,3}}|{SPIFFE_ID.pattern}", re.ASCII)
"""Everything, a name, tenant/key, tenant/key/version, a serial or digest in hexadecimal, or a
SPIFFE ID; before any of the former a word that says what kind it is.
"""


class LeafError(ValueError):
    """A field does not fit the entry format, or bytes are not a canonical entry. It names the
    field, never its value.
    """


def head(kind: Kind, time_ms: int, policy_digest: bytes) -> bytes:
    """Returns the first 42 bytes of an entry, which all kinds share."""
    return struct.pack(">BBQ", VERSION, kind, time_ms) + fixed(
        "policy_digest", policy_digest, HASH_LEN
    )


def reason_number(reason: int) -> bytes:
    """A reason of the table, 16 bits."""
    if reason not in REASONS:
        raise LeafError("reason is not in the table")
    return reason.to_bytes(2, "big")


def unsigned(field: str, value: int, length: int) -> bytes:
    """A big-endian number of `length` bytes."""
    if not 0 <= value < 1 << (8 * length):
        raise LeafError(f"{field} is out of range")
    return value.to_bytes(length, "big")


def fixed(field: str, value: bytes, length: int) -> bytes:
    """Bytes of a fixed length, as they are."""
    if len(value) != length:
        raise LeafError(f"{field} has not {length} bytes")
    return value


def optional(field: str, value: bytes, length: int) -> bytes:
    """Bytes of a fixed length or none, with the length before them as 8 bits."""
    return bytes((length,)) + fixed(field, value, length) if value else b"\x00"


def name(field: str, value: str) -> bytes:
    """A policy name of 1 to 64 bytes, with its length before it as 8 bits."""
    if not NAME.fullmatch(value):
        raise LeafError(f"{field} is not a policy name")
    return short_text(value)


def identity(field: str, value: str) -> bytes:
    """A SPIFFE ID of at most 255 bytes, with its length before it as 8 bits."""
    if len(value) > MAX_ID_LEN or not SPIFFE_ID.fullmatch(value):
        raise LeafError(f"{field} is not a SPIFFE ID of at most {MAX_ID_LEN} bytes")
    return short_text(value)


def target_name(value: str) -> bytes:
    """What an administrative act is on, with its length before it as 8 bits."""
    if not _TARGET.fullmatch(value) or len(value) > MAX_ID_LEN:
        raise LeafError("target is not a name, tenant/key, tenant/key/version, SPIFFE ID or '*'")
    return short_text(value)


def short_text(value: str) -> bytes:
    """ASCII of at most 255 bytes, with its length before it as 8 bits."""
    data = value.encode("ascii")
    return bytes((len(data),)) + data
