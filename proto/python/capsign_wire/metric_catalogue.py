"""The catalogue of metrics: the contract with dashboards and alerts.

Names, units, labels and all their values: another is a defect and raises, so the number of series
is bounded by this file. `docs/operations/telemetry.md` explains each metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import grpc

from capsign_wire import evidence_metrics
from capsign_wire.adapter.v1 import (
    admin_pb2,
    approvals_pb2,
    capability_pb2,
    evidence_pb2,
    identity_pb2,
    inventory_pb2,
    keys_pb2,
    policy_pb2,
    revocations_pb2,
    rollouts_pb2,
    signing_pb2,
    tenants_pb2,
)
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.algorithms import BY_NAME, OPEN
from capsign_wire.failures import REASONS
from capsign_wire.instruments import Instrument, Kind, Labels
from capsign_wire.types.v1 import failures_pb2 as pb

_SERVED = (
    agent_pb2,
    admin_pb2,
    approvals_pb2,
    capability_pb2,
    evidence_pb2,
    identity_pb2,
    inventory_pb2,
    keys_pb2,
    policy_pb2,
    revocations_pb2,
    rollouts_pb2,
    signing_pb2,
    tenants_pb2,
)

OUTCOME_NAMES: Mapping[int, str] = {
    pb.OUTCOME_DONE: "done",
    pb.OUTCOME_REFUSED: "refused",
    pb.OUTCOME_UNKNOWN: "unknown",
    pb.OUTCOME_UNAVAILABLE: "unavailable",
}
NO_REASON = "NONE"
"""The reason label of a call that was done."""

PUBLIC_ANSWERS = ("set", "file", "not_modified", "refused", "limited", "failed", "closed")
"""What verifiers are answered; `closed` is a connection above the bound, with no answer."""

RPC_SYSTEM = "grpc"
"""The value of `rpc.system.name`."""

INVARIANTS = tuple(f"I{number}" for number in range(1, 11))
"""The invariants of the threat model; each has a counter and a test."""


def _names(outcome: pb.Outcome.ValueType) -> frozenset[str]:
    return frozenset(row.name for row in REASONS.values() if row.outcome == outcome)


_RESULTS: frozenset[Labels] = frozenset(
    {("done", NO_REASON), *((OUTCOME_NAMES[row.outcome], row.name) for row in REASONS.values())}
)
"""Outcome and reason, as they go together: a reason has one outcome."""
_SECONDS = (
    0.0001,
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
)
_RPC_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""As the convention for RPC metrics advises."""
_POWERS = tuple(float(2**power) for power in range(11))


def _methods(file: Any) -> Iterator[str]:
    for service in file.DESCRIPTOR.services_by_name.values():
        yield from (f"{service.full_name}/{method.name}" for method in service.methods)


_HOPS = {"hop": frozenset({"application", "upstream", "store", "token", "audit"})}
_QUEUES = {
    "queue": frozenset(
        {"application", "upstream", "commit", "token", "journal", "audit", "watchers"}
    )
}
_DRIFT = {
    "kind": frozenset(
        {
            "tls",
            "mechanism",
            "key-attribute",
            "missing-object",
            "unknown-object",
            "lifetime",
            "configuration",
            "software",
            "policy-file",
            "chart",
        }
    )
}
_INCIDENTS = {
    "kind": frozenset(
        name.removeprefix("INCIDENT_KIND_").lower().replace("_", "-")
        for name, number in inventory_pb2.IncidentKind.items()
        if number
    )
}
_FAULTS = {
    "fault": frozenset(
        {"unavailable", "pin_rejected", "key_missing", "key_exists", "weak_attributes", "other"}
    )
}
_ALGORITHMS = {"algorithm": frozenset({*BY_NAME, OPEN})}
_REFUSED = {"reason": _names(pb.OUTCOME_REFUSED)}
_UNKNOWN = {"reason": _names(pb.OUTCOME_UNKNOWN)}
_CALLS = {
    "outcome": frozenset(outcome for outcome, _ in _RESULTS),
    "reason": frozenset(reason for _, reason in _RESULTS),
}
_STATUSES = frozenset(one.name for one in grpc.StatusCode)
_RPCS = {
    "rpc.system.name": frozenset({RPC_SYSTEM}),
    "rpc.method": frozenset(method for file in _SERVED for method in _methods(file)),
    "rpc.response.status_code": _STATUSES,
    "error.type": _STATUSES | {""},
}
_PACES = {"pace": frozenset({"running", "held", "inconclusive"})}
_ENDS = {"end": frozenset({"done", "aborted", "rolled_back", "overtaken"})}

_ROWS = (
    Instrument(
        "capsign.calls",
        Kind.COUNTER,
        "{item}",
        "Items asked for, by what came of them.",
        _CALLS,
        only=_RESULTS,
    ),
    Instrument(
        "capsign.call.duration",
        Kind.HISTOGRAM,
        "s",
        "From reading a call to its answer.",
        _ALGORITHMS,
        _SECONDS,
    ),
    Instrument(
        "capsign.retries", Kind.COUNTER, "{try}", "Tries after the first, by what was tried.", _HOPS
    ),
    Instrument(
        "capsign.timeouts", Kind.COUNTER, "{wait}", "Waits that ended at their deadline.", _HOPS
    ),
    Instrument(
        "capsign.unknowns",
        Kind.COUNTER,
        "{item}",
        "Items whose outcome the caller must resolve.",
        _UNKNOWN,
    ),
    Instrument("capsign.refusals", Kind.COUNTER, "{item}", "Items refused for good.", _REFUSED),
    Instrument("capsign.rate_limited", Kind.COUNTER, "{item}", "Items above a grant's rate.", {}),
    Instrument(
        "capsign.identities",
        Kind.COUNTER,
        "{certificate}",
        "Certificates asked for, by what came of it.",
        _CALLS,
        only=_RESULTS,
    ),
    Instrument("capsign.queue.depth", Kind.GAUGE, "{item}", "Items that wait now.", _QUEUES),
    Instrument(
        "capsign.queue.age", Kind.GAUGE, "s", "How long the oldest of them has waited.", _QUEUES
    ),
    Instrument(
        "capsign.journal.bytes", Kind.GAUGE, "By", "Audit records not yet taken upstream.", {}
    ),
    Instrument(
        "capsign.room.used",
        Kind.GAUGE,
        "1",
        "Share of the memory for calls that is taken, of the fullest socket.",
        {},
    ),
    Instrument(
        "capsign.upstream.streams",
        Kind.GAUGE,
        "{stream}",
        "Signing streams to adapters that are open.",
        {},
    ),
    Instrument(
        "capsign.handle.age", Kind.GAUGE, "s", "Time since the oldest handle held was issued.", {}
    ),
    Instrument(
        "capsign.certificate.remaining",
        Kind.GAUGE,
        "s",
        "Time until the own certificate ends; 0: there is none.",
        {},
    ),
    Instrument(
        "capsign.authority.remaining",
        Kind.GAUGE,
        "s",
        "Time until the authority that signs ends; 0: none can.",
        {},
    ),
    Instrument(
        "capsign.store.time_to_full",
        Kind.GAUGE,
        "s",
        "Until that disk is full, as fast as it fills now.",
        {},
    ),
    Instrument(
        "capsign.policy.version",
        Kind.GAUGE,
        "{version}",
        "Version of the policy that this replica decides by.",
        {},
    ),
    Instrument(
        "capsign.policy.file_differs",
        Kind.GAUGE,
        "{file}",
        "1 while the policy file of this replica is not the policy in force.",
        {},
    ),
    Instrument(
        "capsign.approvals.open",
        Kind.GAUGE,
        "{proposal}",
        "Proposals that wait for a second person, or for their time.",
        {},
    ),
    Instrument(
        "capsign.approvals.glass_broken",
        Kind.GAUGE,
        "{proposal}",
        "Acts that one person did alone, and nobody else has acknowledged.",
        {},
    ),
    Instrument(
        "capsign.public.answers",
        Kind.COUNTER,
        "{answer}",
        "Answers of the listener for verifiers, by what they are.",
        {"answer": frozenset(PUBLIC_ANSWERS)},
    ),
    Instrument(
        "capsign.public.connections",
        Kind.GAUGE,
        "{connection}",
        "Connections that the listener for verifiers has open.",
        {},
    ),
    Instrument(
        "capsign.rollouts",
        Kind.GAUGE,
        "{rollout}",
        "Rollouts under way, by how they go on.",
        _PACES,
    ),
    Instrument(
        "capsign.rollout.ends",
        Kind.COUNTER,
        "{rollout}",
        "Rollouts that this replica saw to their end, by which.",
        _ENDS,
    ),
    Instrument(
        "capsign.drift",
        Kind.GAUGE,
        "{difference}",
        "Differences from what is expected that are there now, by kind.",
        _DRIFT,
    ),
    Instrument(
        "capsign.incidents",
        Kind.GAUGE,
        "{incident}",
        "Incidents that stand now, by kind: records that do not add up.",
        _INCIDENTS,
    ),
    Instrument(
        "capsign.incidents.found",
        Kind.COUNTER,
        "{incident}",
        "Incidents that this replica found, by kind.",
        _INCIDENTS,
    ),
    Instrument(
        "capsign.reconcile.lag",
        Kind.GAUGE,
        "{leaf}",
        "Leaves not held against the agents' records yet; elsewhere than on the replica that does"
        " it, as of its last save.",
    ),
    Instrument(
        "capsign.reconcile.unjudged",
        Kind.GAUGE,
        "{signature}",
        "Signatures that were forgotten beside too many open ones before they were judged.",
    ),
    Instrument(
        "capsign.incidents.untold",
        Kind.GAUGE,
        "{incident}",
        "Incidents that were found and are not told, since too many stand.",
    ),
    Instrument(
        "capsign.batch.size",
        Kind.HISTOGRAM,
        "{item}",
        "Items in a batch, by where it went.",
        _HOPS,
        _POWERS,
    ),
    Instrument(
        "rpc.server.call.duration",
        Kind.HISTOGRAM,
        "s",
        "From an RPC's start to its end.",
        _RPCS,
        _RPC_SECONDS,
    ),
    Instrument(
        "rpc.client.call.duration",
        Kind.HISTOGRAM,
        "s",
        "The same, by the process that began it.",
        _RPCS,
        _RPC_SECONDS,
    ),
    Instrument(
        "capsign.token.errors",
        Kind.COUNTER,
        "{error}",
        "Token calls that gave no answer or a wrong one.",
        _FAULTS,
    ),
    Instrument(
        "capsign.invariant.violations",
        Kind.COUNTER,
        "{violation}",
        "Promises broken. Anything above 0 is an incident.",
        {"invariant": frozenset(INVARIANTS)},
    ),
    *evidence_metrics.ROWS,
)

CATALOGUE: Mapping[str, Instrument] = {row.name: row for row in _ROWS}
"""Every metric that a capsign process can export, by name."""
