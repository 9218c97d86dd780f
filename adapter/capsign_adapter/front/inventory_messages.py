"""Inventory and drift as people are shown them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from capsign_evidence.drift_leaf import digest_of
from capsign_wire.adapter.v1 import inventory_pb2 as pb
from capsign_wire.types.v1 import algorithms_pb2

from capsign_adapter.decide.drift import shown
from capsign_adapter.decide.inventory import Inventory, KeyEntry, TokenEntry, VersionEntry
from capsign_adapter.decide.policy import Grant
from capsign_adapter.front.key_messages import Figures, time_of, version_of
from capsign_adapter.keys.keyring import Keyring
from capsign_adapter.model.drift import DriftRow, ReplicaReport

PAGE_BYTES = 1_048_576
PAGE_THINGS = 8_192
"""Most bytes, and most things, of one page; a thing has 270 KiB at most."""

Thing = tuple[str, Any]
"""The list of GetInventoryResponse that it is in, and what is in it."""


def page(things: Sequence[Thing], offset: int) -> pb.GetInventoryResponse:
    """The page from there on, with `next` set where more follow."""
    answer, size = pb.GetInventoryResponse(), 0
    for place in range(offset, len(things)):
        where, what = things[place]
        size += 80 if isinstance(what, str) else what.ByteSize() + 4
        if place > offset and (size > PAGE_BYTES or place - offset >= PAGE_THINGS):
            answer.next = place
            return answer
        getattr(answer, where).append(what)
    return answer


def things_of(found: Inventory, keyring: Keyring, figures: Figures) -> Iterator[Thing]:
    """All of it, in the order of the pages. Raises FailureError TOKEN_UNAVAILABLE."""
    for tenant in found.tenants:
        yield "tenants", tenant
    for key in found.keys:
        yield "keys", _key(key)
    for key in found.keys:
        for version in key.versions:
            yield "versions", _version(version, keyring, figures)
    for grant in found.grants:
        yield "grants", _grant(grant)
    for one in found.objects:
        yield "objects", _object(one)


def _key(key: KeyEntry) -> pb.InventoryKey:
    return pb.InventoryKey(
        tenant=key.tenant,
        name=key.name,
        kind=key.kind.value,
        in_policy=key.in_policy,
        algorithms=_algorithms(key.algorithms),
        cryptoperiod_ms=key.cryptoperiod_ms,
        horizon_ms=key.horizon_ms,
        exposed=key.exposed,
        rotates_every_ms=key.rotates_every_ms,
        grants=len(key.grants),
        subjects=key.subjects,
    )


def _version(version: VersionEntry, keyring: Keyring, figures: Figures) -> pb.InventoryVersion:
    row = version.row
    return pb.InventoryVersion(
        tenant=row.tenant,
        key=row.key,
        version=version_of(row, keyring, figures),
        uses=version.uses,
        objects=[shown(label) for label in version.objects[:16]],
    )


def _grant(grant: Grant) -> pb.InventoryGrant:
    return pb.InventoryGrant(
        name=grant.name,
        tenant=grant.tenant,
        key=grant.key,
        purpose=grant.purpose,
        algorithms=_algorithms(sorted(grant.algorithms)),
        protocols=[rule.protocol for rule in grant.protocols],
        ttl_ms=grant.ttl_ms,
        min_custody=algorithms_pb2.CustodyClass.ValueType(grant.min_custody),
        workloads=sorted(grant.workloads),
    )


def _object(one: TokenEntry) -> pb.InventoryObject:
    return pb.InventoryObject(
        label=shown(one.label), kinds=one.kinds[:8], purpose=one.purpose, known=one.known
    )


def _algorithms(numbers: Sequence[int]) -> list[algorithms_pb2.Algorithm.ValueType]:
    return [algorithms_pb2.Algorithm.ValueType(number) for number in numbers]


def difference_of(row: DriftRow) -> pb.Difference:
    """A difference that is there."""
    one = row.difference
    return pb.Difference(
        kind=pb.DriftKind.ValueType(int(one.kind)),
        subject=one.subject,
        aspect=one.aspect,
        expected=one.expected,
        found=one.found,
        since=time_of(row.since_ms),
        leaf_index=row.leaf_index,
        digest=digest_of(one.kind, one.subject, one.aspect, one.expected, one.found),
    )


def replica_of(report: ReplicaReport) -> pb.ReplicaSeen:
    """A replica that reported."""
    return pb.ReplicaSeen(
        replica=report.replica,
        software=report.software,
        started_at=time_of(report.started_ms),
        seen_at=time_of(report.seen_ms),
    )
