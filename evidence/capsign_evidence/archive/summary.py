"""What a tile of the log, 256 leaves with the agents' batches among them, is about: enough to pass
it over when somebody asks for what is not in it.

A Bloom filter over everything that can be asked for, with the earliest and the latest time. It is
made from entries and batches alone, always with the same bytes, so that anybody can make it again
and compare: whoever changes one in the store hides nothing from `capsign audit verify`, nor from a
query that is told to read everything (docs/decisions/0062-summaries-of-tiles.md).
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter

from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import algorithms_pb2

from capsign_evidence import leaf_fields, told_calls
from capsign_evidence.archive.entry_events import of_entry
from capsign_evidence.archive.events import UNREADABLE, Event
from capsign_evidence.archive.interface import Batch
from capsign_evidence.archive.record_events import of_record, parsed_batch
from capsign_evidence.archive.selection import FIELDS, Condition, Selection, Value
from capsign_evidence.archive.summary_gaps import OTHERWISE, with_terms
from capsign_evidence.leaf_fields import HASH_LEN, INTENT_LEN
from capsign_evidence.leaf_kinds import Kind

VERSION = 1
BITS = 12
"""Bits of the filter for each term: with 4 probes, 7 terms in 1,000 are taken for others."""
PROBES = 4

_HEAD = struct.Struct(">BBQQ")
_UNREADABLE = 1
"""Flag: something in it cannot be read."""

Alternative = tuple[int, tuple[int, ...]]
"""A term that a tile must have, and others of which it must have one, if there are any."""

_HASHES = frozenset({"intent", "commitment", "signature", "certificate", "context"})
"""Values that are evenly spread already: their last eight bytes are their term."""

_ONE = ord("1")

_TAIL = INTENT_LEN + 2 * HASH_LEN
"""Bytes at the end of an entry of a signature that are its own; the rest it shares with others."""

_HASHED_AND_CLOSES = HASH_LEN + 1
_OF_BATCH = 8 + 8 + _HASHED_AND_CLOSES
"""Bytes at the end of an entry of a batch that are its own: first and last sequence, hash, and
whether it closes.
"""
_FIRST = (1).to_bytes(8, "big")
"""The lowest sequence number; as bytes they sort as the numbers do."""
_CLOSES = (b"\0", b"\x01")

_KNOWN = bytes((leaf_fields.VERSION,))


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

    def may_hold(self, selection: Selection, wanted: Iterable[Iterable[Alternative]]) -> bool:
        """Whether one of the selected events may be in the tile. `wanted` is `terms_of` the
        selection's conditions.
        """
        return not rules_out(self.encode(), selection, wanted)


def rules_out(data: bytes, selection: Selection, wanted: Iterable[Iterable[Alternative]]) -> bool:
    """Whether an encoded summary says that none of the selected events is in its tile; one that
    this program cannot use says nothing. A large log has tens of thousands.
    """
    if len(data) <= _HEAD.size or data[0] != VERSION or data[1] & _UNREADABLE:
        return False
    _, _, first_ms, last_ms = _HEAD.unpack_from(data)
    if last_ms < selection.since_ms or first_ms >= selection.until_ms:
        return True
    return not all(any(_may(data, one) for one in alternatives) for alternatives in wanted)


def _may(data: bytes, one: Alternative) -> bool:
    term, of = one
    return _has(data, term) and (not of or any(_has(data, other) for other in of))


def _has(data: bytes, term: int) -> bool:
    size = (len(data) - _HEAD.size) * 8
    at, step = term & 0xFFFFFFFF, term >> 32 | 1
    for _ in range(PROBES):
        bit = at % size
        if not data[_HEAD.size + (bit >> 3)] & 1 << (bit & 7):
            return False
        at += step
    return True


def terms_of(conditions: Iterable[Condition]) -> list[list[Alternative]]:
    """The terms of each condition's alternatives, and those of what meets it otherwise."""
    return [
        [
            *((_term(name, value), ()) for name, value in condition),
            *dict.fromkeys(other for name, _ in condition for other in _otherwise(name)),
        ]
        for condition in conditions
    ]


@lru_cache
def _otherwise(name: str) -> tuple[Alternative, ...]:
    """Terms of entries that meet a condition on this, whatever its value, and have no term for
    it.
    """
    return tuple(
        (_term("what", what), tuple(_term(of, value) for value in values))
        for what, of, values in OTHERWISE.get(name, ())
    )


def summarise(first: int, entries: Iterable[bytes], batches: Iterable[Batch]) -> Summary:
    """The summary of these entries, the leaves from `first` on, and of the batches of their leaves,
    which ascend and are taken one at a time.

    A batch that is missing, or whose bytes are not those that its leaf names, counts as unreadable.
    """
    found = _Found()
    waiting = iter(batches)
    batch = next(waiting, None)
    signed: list[bytes] = []
    for index, entry in enumerate(entries, first):
        if entry[:2] == _SIGNED:
            signed.append(entry)
            continue
        if entry[1:2] != _BATCH:
            found.add(of_entry(index, entry))
            continue
        while batch is not None and batch[0] < index:
            batch = next(waiting, None)
        found.add_reported(entry, batch if batch is not None and batch[0] == index else None)
    found.add_signed(signed)
    return found.summary()


_SIGNED = _KNOWN + bytes((Kind.SIGNED,))
_BATCH = bytes((Kind.AGENT_BATCH,))


class _Found:
    """The terms and times of a tile. What many entries or records share is made into terms once;
    what each has for itself is taken in columns (docs/decisions/0086-what-follows-a-signature.md).
    """

    def __init__(self) -> None:
        self._terms: set[int] = set()
        self._times: set[int] = set()
        self._unreadable = False

    def add(self, event: Event) -> None:
        self._unreadable = self._unreadable or event.what == UNREADABLE
        self._times.add(event.time_ms)
        self._terms |= _terms_of_event(with_terms(event))

    def add_signed(self, entries: list[bytes]) -> None:
        """As `add` of the event of each."""
        shared = [_terms_of_group(one) for one in {entry[10:-_TAIL] for entry in entries}]
        if None in shared:
            for entry in entries:
                self.add(of_entry(0, entry))
            return
        self._terms.update(*filter(None, shared))
        # Eight bytes each: of an intent id two, of a commitment four, of a hash four.
        words = array("Q", b"".join([entry[-_TAIL:] for entry in entries]))
        if sys.byteorder == "little":
            words.byteswap()
        for last in (1, 5, 9):
            self._terms.update(words[last :: _TAIL // 8])
        times = [entry[2:10] for entry in entries]
        if times:
            self._times |= {int.from_bytes(one, "big") for one in (min(times), max(times))}

    def add_reported(self, entry: bytes, batch: Batch | None) -> None:
        """As `add` of the event of a batch's entry, which says whose its records are; and those."""
        of_life = _of_life(entry)
        if of_life is None:
            event = of_entry(0, entry)
            self.add(event)
            self._add_batch(batch, event.workload, event.batch_hash)
            return
        self._times.add(int.from_bytes(entry[2:10], "big"))
        self._terms |= of_life[1]
        self._add_batch(batch, of_life[0], entry[-_HASHED_AND_CLOSES:-1])

    def _add_batch(self, batch: Batch | None, workload: str, batch_hash: bytes) -> None:
        parsed = parsed_batch(batch[2], batch_hash) if batch is not None else None
        if batch is None or parsed is None:
            self._unreadable = True
            return
        of, records = (workload, parsed.boot_id), list(parsed.records)
        shared = {one: _terms_of_record(of, one) for one in {*map(_SHARED_OF_RECORD, records)}}
        if None in shared.values():
            known = [one for one in records if shared[_SHARED_OF_RECORD(one)] is not None]
            for record in records:
                if shared[_SHARED_OF_RECORD(record)] is None:
                    self.add(of_record(0, *of, record))
            records = known
        self._terms.update(*filter(None, shared.values()))
        intents = {record.intent_id for record in records} - {b""}
        for more in filter(None, map(told_calls.more_intents, records)):
            intents.update(told_calls.ids(more))
        self._terms.update(map(_last, intents))
        times = [record.time_ms for record in records]
        if times:
            self._times |= {min(times), max(times)}

    def summary(self) -> Summary:
        size = max(1, (len(self._terms) * BITS + 7) // 8) * 8
        # A digit for each bit, lowest first: Python sets one faster than a bit, and packs them all
        # at once. Each probe has digits of its own, so that only the first has to be divided; then
        # they are laid upon each other ("0" or "1" is "1").
        digits = bytearray(b"0") * (PROBES * size)
        for term in self._terms:
            at, step = (term & 0xFFFFFFFF) % size, (term >> 32 | 1) % size
            # one for each of PROBES
            digits[at] = digits[at + step] = digits[at + 2 * step] = digits[at + 3 * step] = _ONE
        laid = 0
        for first in range(0, PROBES * size, size):
            laid |= int.from_bytes(digits[first : first + size], "little")
        bits = int(laid.to_bytes(size, "big"), 2).to_bytes(size // 8, "little")
        times = self._times or {0}
        return Summary(min(times), max(times), self._unreadable, bits)


def _terms_of_event(event: Event) -> set[int]:
    return {
        _term(name, value)
        for name, fields in FIELDS.items()
        for field in fields
        if (value := getattr(event, field))
    }


@lru_cache(maxsize=1024)
def _terms_of_group(shared: bytes) -> frozenset[int] | None:
    """The terms of entries of signatures that have this between their time and what is their own;
    None if such an entry cannot be read.
    """
    event = of_entry(0, _SIGNED + bytes(8) + shared + bytes(_TAIL))
    if event.what == UNREADABLE:
        return None
    alone = replace(event, intent_id=b"", commitment=b"", signature_hash=b"")
    return frozenset(_terms_of_event(alone))


_SHARED_OF_RECORD = attrgetter(
    "kind", "outcome", "reason", "grant", "caller", "algorithm", "key_version"
)
"""What `_terms_of_record` takes of a record."""


def _of_life(entry: bytes) -> tuple[str, frozenset[int]] | None:
    """Workload and terms of the entry of a batch; None for one that must be decoded: it cannot be
    read, or tells what is the same for all batches of its agent's life in another way.
    """
    first = entry[-_OF_BATCH : -_OF_BATCH + 8]
    last = entry[-_OF_BATCH + 8 : -_HASHED_AND_CLOSES]
    if entry[:1] != _KNOWN or entry[-1:] not in _CLOSES or not _FIRST <= first <= last:
        return None
    return _terms_of_life(entry[10:-_OF_BATCH])


@lru_cache(maxsize=1024)
def _terms_of_life(shared: bytes) -> tuple[str, frozenset[int]] | None:
    """Workload and terms of entries of batches that have this between their time and what is their
    own; None if such an entry cannot be read.
    """
    own = _FIRST + _FIRST + bytes(HASH_LEN) + _CLOSES[0]
    event = of_entry(0, _KNOWN + _BATCH + bytes(8) + shared + own)
    if event.what == UNREADABLE:
        return None
    return event.workload, frozenset(_terms_of_event(event))


@lru_cache(maxsize=4096)
def _terms_of_record(
    of: tuple[str, bytes], shared: tuple[int, int, int, str, str, int, int]
) -> frozenset[int] | None:
    """The terms of records of one life of an agent that have these in common; None if such a record
    cannot be read.
    """
    kind, outcome, reason, grant, caller, algorithm, key_version = shared
    record = pb.AuditRecord(grant=grant, caller=caller, key_version=key_version)
    for field, value in (("kind", kind), ("outcome", outcome), ("reason", reason)):
        setattr(record, field, value)
    record.algorithm = algorithms_pb2.Algorithm.ValueType(algorithm)
    event = of_record(0, *of, record)
    return None if event.what == UNREADABLE else frozenset(_terms_of_event(event))


def _term(name: str, value: Value) -> int:
    """64 bits that stand for a value of this name."""
    if name in _HASHES and isinstance(value, bytes):
        return _last(value)
    data = value if isinstance(value, bytes) else str(value).encode()
    return int.from_bytes(blake2b(name.encode() + b"\0" + data, digest_size=8).digest(), "big")


def _last(value: bytes) -> int:
    return int.from_bytes(value[-8:], "big")
