"""Whose key an agent's record was about, and whose pod wrote it.

A record names its grant and the life of its agent, and neither tenant, key nor pod. Both follow
from the archive alone (docs/decisions/0073-what-a-pod-refused.md):

* tenant and key from the policy's document, whose digest every entry has: of the grants that it
  gives, or gave when the record was written;
* the version from the entry that a record of a signature names. What was refused in the pod, and
  what is unknown, had none yet, and counts as any version of its key;
* the pod from the certificate that the adapter issued to it, which a life of an agent says it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from capsign_evidence.archive.entry_events import of_entry
from capsign_evidence.archive.events import Event
from capsign_evidence.archive.interface import Archive
from capsign_evidence.archive.selection import Condition, Selection
from capsign_evidence.leaf_fields import HASH_LEN
from capsign_evidence.merkle import TILE_WIDTH

Key = tuple[str, str]
"""A tenant and its key."""

Grants = Callable[[bytes], Iterable[tuple[str, str, str]]]
"""Grant, tenant and key of each grant that a policy's document gives. Raises ValueError if it is no
policy.
"""


class ReadPolicies(NamedTuple):
    """How the documents of policies are read. `lacking` is told how many the archive should have
    and has not, if any.
    """

    grants: Grants
    lacking: Callable[[int], None] = lambda _: None


ALLOWANCE_MS = 300_000
"""How far an agent's clock may be from the adapter's, and a record from its batch: a record that is
older than a policy by less than this may be of the one before.
"""

MAX_BINDINGS = 500_000
"""Most grants of all documents together that are told apart by document; beyond it a record is
found under each key that its grant was ever for.
"""

_BY_POLICY = frozenset({"tenant", "key", "version"})
_CALLED = frozenset({"done", "refused", "unknown", "unavailable"})
_ENTRY_TILES = 64
"""Tiles of entries that are kept, which is a few mebibytes."""


@dataclass(frozen=True, slots=True)
class Policies:
    """What the documents in an archive say of grants.

    `missing`: digests that entries of the log name, and no document of the archive has.
    """

    missing: frozenset[bytes]
    _by_digest: dict[bytes, dict[str, Key]]
    _ever: dict[str, set[Key]]
    _since_ms: dict[bytes, int]

    def keys(self, digest: bytes, grant: str, time_ms: int) -> Iterable[Key]:
        """The keys that a grant may have been for, in a record of this time whose batch was taken
        under the policy with this digest.
        """
        now = self._by_digest.get(digest, {}).get(grant)
        if now is not None and time_ms >= self._since_ms.get(digest, 0) + ALLOWANCE_MS:
            return (now,)
        return self._ever.get(grant, ())

    def grants(self, met: Callable[[Key], bool]) -> frozenset[str]:
        """The grants that were ever for a key that meets this."""
        return frozenset(grant for grant, keys in self._ever.items() if any(map(met, keys)))


def read_policies(archive: Archive, applied: Iterable[Event], grants: Grants) -> Policies:
    """The policies of an archive. `applied`: its entries about policies that came into force, with
    the target `<version>/<digest>`. Raises ArchiveError.
    """
    since: dict[bytes, int] = {}
    for event in applied:
        try:
            digest = bytes.fromhex(event.target.rpartition("/")[2])
        except ValueError:
            continue
        if len(digest) == HASH_LEN:
            since[digest] = max(since.get(digest, 0), event.time_ms)
    by_digest: dict[bytes, dict[str, Key]] = {}
    ever: dict[str, set[Key]] = {}
    shared: dict[Key, Key] = {}
    held: set[bytes] = set()
    left = MAX_BINDINGS
    for document in archive.policies():
        digest = sha256(document).digest()
        try:
            given = {
                grant: shared.setdefault((tenant, key), (tenant, key))
                for grant, tenant, key in grants(document)
            }
        except ValueError:
            continue  # nothing that was ever in force: its digest is missing if it was
        held.add(digest)
        for grant, key in given.items():
            ever.setdefault(grant, set()).add(key)
        if len(given) <= left:
            left -= len(given)
            by_digest[digest] = given
    return Policies(frozenset(since.keys() - held), by_digest, ever, since)


class Attribution:
    """Which records of agents meet conditions on tenant, key and version."""

    def __init__(self, archive: Archive, selection: Selection, policies: Policies) -> None:
        """`selection` has the conditions, and has them on such things."""
        self._archive = archive
        self._selection = selection
        self._policies = policies
        self._versions = [
            int(value)
            for condition in selection.conditions
            for name, value in condition
            if name == "version"
        ]
        self._tile = lru_cache(_ENTRY_TILES)(self._read_tile)
        self.wide = self._widened()

    def _widened(self) -> Selection:
        """A selection that every tile and batch meets in which such a record may be: what policies
        say is replaced by the grants in question.
        """
        of_keys = [
            one for one in self._selection.conditions if {name for name, _ in one} <= _BY_POLICY
        ]
        grants = self._policies.grants(
            lambda key: all(_may_meet(condition, key) for condition in of_keys)
        )
        others = tuple(one for one in self._selection.conditions if one not in of_keys)
        named = frozenset(("grant", grant) for grant in grants)
        return replace(self._selection, conditions=(*others, named))

    def matches(self, event: Event, digest: bytes) -> bool:
        """Whether a record is one of the selected; `digest` is that of the policy under which its
        batch was taken.
        """
        if self._selection.matches(event):
            return True
        keys = self._policies.keys(digest, event.grant, event.time_ms) if event.grant else ()
        return any(
            self._selection.matches(
                replace(event, tenant=tenant, key=key, key_version=first, second_key_version=second)
            )
            for tenant, key in keys
            for first, second in self._versions_of(event)
        )

    def _versions_of(self, event: Event) -> Iterator[tuple[int, int]]:
        """The versions that a record was about; any that is asked for, if none was chosen."""
        if event.key_version or not self._versions or event.outcome not in _CALLED:
            yield event.key_version, 0
        elif event.outcome == "done" and event.names_leaf is not None:
            signed = self._entry(event.names_leaf)
            if signed is not None:
                yield signed.key_version, signed.second_key_version
        else:
            yield from ((version, 0) for version in self._versions)

    def _entry(self, index: int) -> Event | None:
        tile = self._tile(index // TILE_WIDTH)
        at = index - max(index // TILE_WIDTH * TILE_WIDTH, self._archive.first)
        return of_entry(index, tile[at]) if 0 <= at < len(tile) else None

    def _read_tile(self, tile: int) -> list[bytes]:
        first = max(tile * TILE_WIDTH, self._archive.first)
        end = min((tile + 1) * TILE_WIDTH, self._archive.size)
        return list(self._archive.entries(first, end - first)) if first < end else []


def needs_policies(selection: Selection) -> bool:
    """Whether records of agents can meet the conditions only by what policies say."""
    return any({name for name, _ in one} <= _BY_POLICY for one in selection.conditions)


def _may_meet(condition: Condition, key: Key) -> bool:
    return any(
        name == "version"
        or (name == "tenant" and value == key[0])
        or (name == "key" and value == key[1])
        for name, value in condition
    )
