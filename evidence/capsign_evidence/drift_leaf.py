"""Entries about drift: what is found beside what is expected, once when a difference appears and
once when it goes.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from capsign_evidence import leaf_fields
from capsign_evidence.leaf_fields import HASH_LEN, LeafError
from capsign_evidence.leaf_kinds import Act, Kind

DRIFT_ACTS = frozenset({Act.DRIFT_FOUND, Act.DRIFT_GONE, Act.UNKNOWN_OBJECT})

_DOMAIN = b"capsign1 drift"
_OBJECT = re.compile(rf"{leaf_fields.NAME.pattern}(/{leaf_fields.NAME.pattern}){{0,7}}", re.ASCII)


class DriftKind(IntEnum):
    """What differs: the numbers of capsign.adapter.v1.DriftKind, never reused."""

    TLS = 1
    """What a listener negotiates, seen by a handshake with it."""
    MECHANISM = 2
    """A mechanism that the keys need and the token does not offer."""
    KEY_ATTRIBUTE = 3
    """An attribute or the check value of a key in the token."""
    MISSING_OBJECT = 4
    """A key that should be in the token."""
    UNKNOWN_OBJECT = 5
    """An object in the token that nothing accounts for."""
    LIFETIME = 6
    """Something that lives longer than it may."""
    CONFIGURATION = 7
    """A setting that a replica runs with, beside its file or the other replicas."""
    SOFTWARE = 8
    """The version of a replica's software, beside the others."""
    POLICY_FILE = 9
    """The policy file of a replica, beside the policy in force."""
    CHART = 10
    """What the chart was installed with, beside policy and replicas."""


@dataclass(frozen=True, slots=True)
class Drifted:
    """A difference was found, or is gone.

    `subject` is its name where that is up to eight policy names with slashes between them, and else
    "object/" and 32 hexadecimal digits of its SHA-256: labels in a token are other people's text.
    `digest` (`digest_of`) is of the whole difference, so that who is shown one can hold it against
    the log. `since_ms` is when it was found.
    """

    time_ms: int
    policy_digest: bytes
    act: Act
    drift: DriftKind
    subject: str
    aspect: str
    digest: bytes
    since_ms: int

    kind = Kind.DRIFT

    def encode(self) -> bytes:
        """The entry. Raises LeafError."""
        if self.act not in DRIFT_ACTS:
            raise LeafError("act is none of a difference")
        if not _is_name(self.subject):
            raise LeafError("subject is not names with slashes between them")
        return b"".join(
            (
                leaf_fields.head(self.kind, self.time_ms, self.policy_digest),
                leaf_fields.unsigned("act", self.act, 2),
                leaf_fields.unsigned("drift", DriftKind(self.drift), 1),
                leaf_fields.short_text(self.subject),
                leaf_fields.name("aspect", self.aspect),
                leaf_fields.fixed("digest", self.digest, HASH_LEN),
                leaf_fields.unsigned("since_ms", self.since_ms, 8),
            )
        )


def digest_of(kind: DriftKind, name: str, aspect: str, expected: str, found: str) -> bytes:
    """SHA-256 over a domain string and the fields, each with its length as 32 bits before it."""
    fields = (str(int(kind)), name, aspect, expected, found)
    encoded = [part.encode() for part in fields]
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in (_DOMAIN, *encoded))
    return hashlib.sha256(framed).digest()


def named(name: str) -> str:
    """How an entry names an object."""
    if _is_name(name):
        return name
    return f"object/{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _is_name(name: str) -> bool:
    return len(name) <= leaf_fields.MAX_ID_LEN and _OBJECT.fullmatch(name) is not None


class Cursor(Protocol):
    """Takes fields off the front of an entry."""

    def fixed(self, length: int) -> bytes: ...
    def unsigned(self, length: int) -> int: ...
    def text(self) -> str: ...
    def act(self) -> Act: ...
    def member(self, kind: type[DriftKind], length: int) -> DriftKind: ...


def read_drift(cursor: Cursor, time_ms: int) -> Drifted:
    """The rest of an entry of kind DRIFT."""
    return Drifted(
        time_ms,
        policy_digest=cursor.fixed(HASH_LEN),
        act=cursor.act(),
        drift=cursor.member(DriftKind, 1),
        subject=cursor.text(),
        aspect=cursor.text(),
        digest=cursor.fixed(HASH_LEN),
        since_ms=cursor.unsigned(8),
    )
