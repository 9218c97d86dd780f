"""Whom a revocation reaches, by the policy in force: what a person is shown before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capsign_wire.adapter.v1 import admin_pb2 as pb
from capsign_wire.key_states import SIGNS

from capsign_adapter.decide.policy import Grant, Policy
from capsign_adapter.model.key_versions import KeyVersionRow


@dataclass(frozen=True, slots=True)
class Reach:
    """Workloads and grants that would stop signing, sorted; the longest life of their handles,
    milliseconds; for a key version, the versions that go on in its place, newest first; for a
    person, the roles that decide nothing any more. `wide`: a person is asked first.
    """

    workloads: tuple[str, ...]
    grants: tuple[str, ...]
    handle_life_ms: int
    successors: tuple[int, ...]
    roles: tuple[str, ...]
    wide: bool


def reach_of(kind: int, target: str, policy: Policy, versions: Sequence[KeyVersionRow]) -> Reach:
    """Returns what would stop. `versions` are those of the store that are not revoked."""
    pairs = _pairs(kind, target, policy)
    successors: tuple[int, ...] = ()
    if kind == pb.REVOCATION_KIND_KEY_VERSION:
        tenant, key, number = target.split("/")
        rest = [
            row for row in versions if (row.tenant, row.key) == (tenant, key) and row.state in SIGNS
        ]
        others = [row for row in rest if row.version != int(number)]
        successors = tuple(sorted((row.version for row in others), reverse=True))
        offered = frozenset(number for row in others for number in row.algorithms)
        signs = any(row.version == int(number) for row in rest)
        pairs = [(grant, who) for grant, who in pairs if signs and not grant.algorithms <= offered]
    workloads = tuple(sorted({who for _, who in pairs}))
    grants = {grant.name: grant for grant, _ in pairs}
    everybody = kind in {pb.REVOCATION_KIND_EVERYTHING, pb.REVOCATION_KIND_TENANT}
    person = policy.roles_of(target) if kind == pb.REVOCATION_KIND_WORKLOAD else frozenset()
    return Reach(
        workloads=workloads,
        grants=tuple(sorted(grants)),
        handle_life_ms=max((grant.ttl_ms for grant in grants.values()), default=0),
        successors=successors,
        roles=tuple(sorted(role.value for role in person)),
        wide=everybody or bool(workloads or person),
    )


def lifted_by(kind: int) -> str:
    """Returns what lifts it, a sentence for a person."""
    if kind == pb.REVOCATION_KIND_HANDLE:
        return "Nothing lifts it; the workload's agent may fetch another handle at once."
    return (
        "It stands until two people lift it: `capsign revoke lift` proposes that, and an "
        "approver approves it."
    )


def _pairs(kind: int, target: str, policy: Policy) -> list[tuple[Grant, str]]:
    """Returns each grant with each of its workloads, as far as they are reached."""
    return [
        (grant, who)
        for grant in policy.grants
        for who in grant.workloads
        if _covers(kind, target, grant, who)
    ]


def _covers(kind: int, target: str, grant: Grant, workload: str) -> bool:
    key = f"{grant.tenant}/{grant.key}"
    named = {
        pb.REVOCATION_KIND_GRANT: grant.name,
        pb.REVOCATION_KIND_WORKLOAD: workload,
        pb.REVOCATION_KIND_KEY: key,
        pb.REVOCATION_KIND_TENANT: grant.tenant,
        pb.REVOCATION_KIND_EVERYTHING: target,
    }
    if kind == pb.REVOCATION_KIND_KEY_VERSION:
        return target.rpartition("/")[0] == key
    return named.get(pb.RevocationKind.ValueType(kind)) == target
