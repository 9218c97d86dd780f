"""What a tile of the log, 256 leaves with the agents' batches among them, is about: enough to pass
it over when somebody asks for what is not in it.

A Bloom filter over everything that can be asked for, with the earliest and the latest time. It is
made from entries and batches alone, always with the same bytes, so that anybody can make it again
and compare: whoever changes one in the store hides nothing from `capsign audit verify`, nor from a
query that is told to read everything (docs/decisions/0062-summaries-of-tiles.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from capsign_evidence.archive.entry_events import of_entry
from capsign_evidence.archive.events import UNREADABLE, Event
from capsign_evidence.archive.interface import Batch
from capsign_evidence.archive.record_events import of_batch
from capsign_evidence.archive.selection import FIELDS, Condition, Selection, Value
from capsign_evidence.leaf import HASH_LEN, INTENT_LEN, Kind

VERSION = 1
BITS = 10
"""Bits of the filter for each term: with 7 probes, one term in a hundred is taken for another."""
PROBES = 7

_HEAD = struct.Struct(">BBQQ")
_UNREADABLE = 1
"""Flag: something in it cannot be read."""

_HASHES = frozenset({"intent", "commitment", "signature", "certificate", "context"})
"""Values that are evenly spread already: their last eight bytes are their term."""

_TAIL = INTENT_LEN + 2 * HASH_LEN
"""Bytes at the end of an entry of a signature that are its own; the rest it shares with others."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Times in milliseconds, both included; `filter` has a bit for each of a term's probes."""

    first_ms: int
    last_ms: int
    unreadable: bool
    filter: bytes

    def encode(self) -> bytes:
        """18 bytes, then the filter."""
        flags = _UNREADABLE if self.unreadable else 0
        return _HEAD.pack(VERSION, flags, self.first_ms, self.last_ms) + self.filter

    @classmethod
    def decode(cls, data: bytes) -> Summary | None:
        """The summary that `encode` wrote; None for one that this program cannot use."""
        if len(data) <= _HEAD.size or data[0] != VERSION:
            return None
        _, flags, first_ms, last_ms = _HEAD.unpack_from(data)
        return cls(first_ms, last_ms, bool(flags & _UNREADABLE), data[_HEAD.size :])

    def may_hold(self, selection: Selection, wanted: Iterable[Iterable[int]]) -> bool:
        """Whether one of the selected events may be in the tile. `wanted` is `terms_of` the
        selection's conditions.
        """
        if self.unreadable:
            return True
        if self.last_ms < selection.since_ms or self.first_ms >= selection.until_ms:
            return False
        return all(any(map(self._has, alternatives)) for alternatives in wanted)

    def _has(self, term: int) -> bool:
        bits, size = self.filter, len(self.filter) * 8
        at, step = term & 0xFFFFFFFF, term >> 32 | 1
        for _ in range(PROBES):
            bit = at % size
            if not bits[bit >> 3] & 1 << (bit & 7):
                return False
            at += step
        return True


def terms_of(conditions: Iterable[Condition]) -> list[list[int]]:
    """The terms of each condition's alternatives."""
    return [[_term(name, value) for name, value in condition] for condition in conditions]


def summarise(first: int, entries: Iterable[bytes], batches: Iterable[Batch]) -> Summary:
    """The summary of these entries, the leaves from `first` on, and of the batches of their leaves.

    A batch that is missing, or whose bytes are not those that its leaf names, counts as unreadable.
    """
    found = _Terms()
    held: Mapping[int, Batch] = {batch[0]: batch for batch in batches}
    for index, entry in enumerate(entries, first):
        if entry[1:2] == _SIGNED:
            found.add_signed(index, entry)
            continue
        event = of_entry(index, entry)
        found.add(event)
        if entry[1:2] == _BATCH:
            batch = held.get(index)
            if batch is None:
                found.unreadable = True
            else:
                for record in of_batch(index, batch[1], batch[2], event.batch_hash):
                    found.add(record)
    return found.summary()


_SIGNED = bytes((Kind.SIGNED,))
_BATCH = bytes((Kind.AGENT_BATCH,))


class _Terms:
    def __init__(self) -> None:
        self._terms: set[int] = set()
        self._groups: set[bytes] = set()
        self._times: set[int] = set()
        self.unreadable = False

    def add(self, event: Event) -> None:
        if event.what == UNREADABLE:
            self.unreadable = True
        self._times.add(event.time_ms)
        for name, fields in FIELDS.items():
            for field in fields:
                if value := getattr(event, field):
                    self._terms.add(_term(name, value))

    def add_signed(self, index: int, entry: bytes) -> None:
        """As `add` of its event; what a group shares is decoded once."""
        shared = entry[10:-_TAIL]
        if shared not in self._groups:
            event = of_entry(index, entry)
            self.add(event)
            if event.what != UNREADABLE:
                self._groups.add(shared)
            return
        self._times.add(int.from_bytes(entry[2:10], "big"))
        own = entry[-_TAIL:]
        self._terms.update(
            (
                _last(own[:INTENT_LEN]),
                _last(own[INTENT_LEN : INTENT_LEN + HASH_LEN]),
                _last(own[INTENT_LEN + HASH_LEN :]),
            )
        )

    def summary(self) -> Summary:
        size = max(1, (len(self._terms) * BITS + 7) // 8) * 8
        bits = bytearray(size // 8)
        for term in self._terms:
            at, step = term & 0xFFFFFFFF, term >> 32 | 1
            for _ in range(PROBES):
                bit = at % size
                bits[bit >> 3] |= 1 << (bit & 7)
                at += step
        times = self._times or {0}
        return Summary(min(times), max(times), self.unreadable, bytes(bits))


def _term(name: str, value: Value) -> int:
    """64 bits that stand for a value of this name."""
    if name in _HASHES and isinstance(value, bytes):
        return _last(value)
    data = value if isinstance(value, bytes) else str(value).encode()
    return int.from_bytes(blake2b(name.encode() + b"\0" + data, digest_size=8).digest(), "big")


def _last(value: bytes) -> int:
    return int.from_bytes(value[-8:], "big")
