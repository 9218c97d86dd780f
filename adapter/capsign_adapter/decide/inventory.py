"""Everything that there is to sign with, as one value: tenants, keys, versions, the objects of the
token that they are, grants and whom they let sign.

It is a join of what is known elsewhere and decides nothing. Times are milliseconds since 1970, 0
for never.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from capsign_adapter.algorithms.table import TABLE
from capsign_adapter.decide.drift import lifetime_of
from capsign_adapter.decide.policy import Grant, Key, KeyKind, Policy
from capsign_adapter.model.drift import KeyUse
from capsign_adapter.model.key_versions import KeyVersionRow

QUANTUM_MS = 2_051_222_400_000
"""2035-01-01: after it no signature may rest on ECDSA, EdDSA or RSA any more (NIST IR 8547, initial
public draft, table 2).
"""


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """An object in the token: its label and classes, what it is for, and whether anything accounts
    for it.
    """

    label: str
    kinds: tuple[str, ...]
    purpose: str
    known: bool


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """A version of a key. `ends_ms` is the end of its cryptoperiod, 0 for one that never signed;
    `objects` are the labels of its objects in the token.
    """

    row: KeyVersionRow
    last_used_ms: int
    uses: int
    ends_ms: int
    objects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key. `horizon_ms` is how long what it protects must withstand attacks; `exposed` says that
    this reaches beyond 2035 and an algorithm of it does not.
    """

    tenant: str
    name: str
    kind: KeyKind
    in_policy: bool
    algorithms: tuple[int, ...]
    cryptoperiod_ms: int
    horizon_ms: int
    exposed: bool
    rotates_every_ms: int
    versions: tuple[VersionEntry, ...]
    grants: tuple[str, ...]
    subjects: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """All of it, sorted by name."""

    tenants: tuple[str, ...]
    keys: tuple[KeyEntry, ...]
    grants: tuple[Grant, ...]
    objects: tuple[TokenEntry, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What is joined: versions of each key, newest first; when each signed last; what the token
    holds, as (label, kinds).
    """

    versions: Mapping[tuple[str, str], Sequence[KeyVersionRow]]
    uses: Sequence[KeyUse]
    objects: Sequence[tuple[str, tuple[str, ...]]]
    accounted: frozenset[str]


def inventory(policy: Policy, known: Known, now_ms: int) -> Inventory:
    """The join."""
    names = sorted({(key.tenant, key.name) for key in policy.keys} | known.versions.keys())
    uses = {(use.tenant, use.key, use.version): use for use in known.uses}
    held: dict[str, list[str]] = {}
    for label, _ in known.objects:  # a version has its own object, and those below it
        for owner in (label, label.rpartition("/")[0]):
            held.setdefault(owner, []).append(label)
    tenants = sorted({*policy.tenants, *(tenant for tenant, _ in names)})
    keys = tuple(_key(policy, name, known, uses, held, now_ms) for name in names)
    meant = purposes(keys)
    objects = [
        TokenEntry(label, kinds, meant.get(label) or purpose_of(label), label in known.accounted)
        for label, kinds in sorted(known.objects)
    ]
    grants = sorted(policy.grants, key=lambda grant: grant.name)
    return Inventory(tuple(tenants), keys, tuple(grants), tuple(objects))


def _key(
    policy: Policy,
    name: tuple[str, str],
    known: Known,
    uses: Mapping[tuple[str, str, int], KeyUse],
    held: Mapping[str, Sequence[str]],
    now_ms: int,
) -> KeyEntry:
    key, rows = policy.key(*name), known.versions.get(name, ())
    life = lifetime_of(key)
    grants = [grant for grant in policy.grants if (grant.tenant, grant.key) == name]
    algorithms = tuple(sorted(key.algorithms if key is not None else _served(rows)))
    return KeyEntry(
        tenant=name[0],
        name=name[1],
        kind=kind_of(key, rows),
        in_policy=key is not None,
        algorithms=algorithms,
        cryptoperiod_ms=life.cryptoperiod_ms,
        horizon_ms=life.horizon_ms,
        exposed=is_exposed(algorithms, life.horizon_ms, now_ms),
        rotates_every_ms=key.rotation.every_ms if key is not None and key.rotation else 0,
        versions=tuple(
            _version(row, uses.get((*name, row.version)), life.cryptoperiod_ms, held)
            for row in rows
        ),
        grants=tuple(sorted(grant.name for grant in grants)),
        subjects=len({workload for grant in grants for workload in grant.workloads}),
    )


def _version(
    row: KeyVersionRow, use: KeyUse | None, cryptoperiod_ms: int, held: Mapping[str, Sequence[str]]
) -> VersionEntry:
    return VersionEntry(
        row=row,
        last_used_ms=use.last_ms if use is not None else 0,
        uses=use.count if use is not None else 0,
        ends_ms=row.activated_ms + cryptoperiod_ms if row.activated_ms else 0,
        objects=tuple(sorted(held.get(row.label, ()))),
    )


def _served(rows: Sequence[KeyVersionRow]) -> Iterable[int]:
    return rows[0].algorithms if rows else ()


def kind_of(key: Key | None, rows: Sequence[KeyVersionRow]) -> KeyKind:
    """How it signs; of a key that the policy has no more, how its newest version does."""
    if key is not None:
        return key.kind
    return KeyKind.DERIVED if rows and rows[0].derived else KeyKind.DIRECT


def is_exposed(algorithms: Iterable[int], horizon_ms: int, now_ms: int) -> bool:
    """Whether what is signed now must be trusted when a quantum computer may forge it."""
    safe = all(TABLE[algorithm].quantum_safe for algorithm in algorithms)
    return bool(horizon_ms) and now_ms + horizon_ms > QUANTUM_MS and not safe


_PARTS = {"attest": "attestations", "spent": "number"}
"""What the objects below a version's own are for, by the end of their labels."""


def purposes(keys: Iterable[KeyEntry]) -> dict[str, str]:
    """What the objects of key versions are for, in words, by label."""
    found = {}
    for key in keys:
        for version in key.versions:
            row = version.row
            found[row.label] = f"key {row.name}"
            found |= {
                label: f"{_PARTS.get(label.rpartition('/')[2], 'part')} of {row.name}"
                for label in version.objects
                if label != row.label
            }
    return found


def purpose_of(label: str) -> str:
    """What an object that is no key version's is for; empty if nothing is known."""
    parts = label.split("/")
    if parts[0] != "capsign":
        return ""
    match parts[1:]:
        case ["log"] | ["log-root"]:
            return "checkpoints of the log"
        case ["mint"]:
            return "handles"
        case ["authority", number] if number.isdecimal():
            return f"authority {number} of identities"
        case [tenant, "pepper"]:
            return f"commitments of {tenant}"
    return ""
