"""Whatever is recorded can be read in an event: each field of each kind of entry, and of a record.

A rollout rolled back, and `capsign audit query` told neither on which samples nor by what verdict.
An agent saw a split view, and nobody could read which two trees it had seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import IntEnum
from itertools import count
from typing import Any, get_args, get_type_hints
from uuid import UUID

import pytest
from capsign_evidence import leaf_reader
from capsign_evidence.archive.details import pairs
from capsign_evidence.archive.entry_events import of_decoded
from capsign_evidence.archive.events import described
from capsign_evidence.archive.record_events import of_calls, of_record
from capsign_evidence.leaf_kinds import Act, Kind
from capsign_evidence.rollout_leaf import RolloutStep, SideFigures
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.adapter.v1 import rollouts_pb2
from capsign_wire.algorithms import ALGORITHMS, CUSTODY_NAMES
from capsign_wire.failures import REASONS
from google.protobuf.descriptor import FieldDescriptor
from support.evidence_at_rest import APP

WORDS: Mapping[str, Mapping[int, str]] = {
    "algorithm": {number: row.name for number, row in ALGORITHMS.items()},
    "custody": CUSTODY_NAMES,
    "reason": {number: row.name for number, row in REASONS.items()},
    "stage": {rollouts_pb2.ROLLOUT_STAGE_ROLLED_BACK: "rolled-back"},
    "pace": {rollouts_pb2.ROLLOUT_PACE_HELD: "held"},
    "verdict": {rollouts_pb2.ROLLOUT_VERDICT_FAILED: "failed"},
    "log_fault": {pb.LOG_FAULT_SHRUNK: "shrunk"},
}
"""Values of fields that are numbers of an enumeration, and how they are told."""


class Values:
    """Makes a value for each field that no other has, and keeps how it is told."""

    def __init__(self) -> None:
        self._next = count(10_001)
        self.told: dict[str, Any] = {}

    def instance(self, kind: type, path: str = "") -> Any:
        hints = get_type_hints(kind)
        return kind(
            **{
                field.name: self.of(f"{path}{field.name}", hints[field.name])
                for field in fields(kind)
            }
        )

    def of(self, name: str, kind: Any) -> Any:
        if is_dataclass(kind):
            return self.instance(kind, f"{name}.")
        number, last = next(self._next), name.rpartition(".")[2]
        words = next((row for end, row in WORDS.items() if last.endswith(end)), None)
        if isinstance(kind, type) and issubclass(kind, IntEnum):
            member = list(kind)[-1]
            self.told[name] = member.name.lower().replace("_", "-")
            return member
        if kind is bytes:
            self.told[name] = number.to_bytes(16, "big").hex()
            return number.to_bytes(16, "big")
        if kind is str:
            self.told[name] = text = f"s{number}"
            return text
        if kind is bool:
            self.told[name] = True
            return True
        if words is not None:
            chosen = sorted(words)[number % len(words)]
            self.told[name] = words[chosen]
            return chosen
        self.told[name] = number - 1 if last == "leaf_index_plus_one" else number
        return number


def values_in(plain: Any) -> Iterator[Any]:
    for value in plain.values() if isinstance(plain, dict) else plain:
        if isinstance(value, dict):
            yield from values_in(value)
        elif isinstance(value, str) and value.count("-") == 4:
            yield UUID(value).hex
        else:
            yield value


ENTRIES = get_args(leaf_reader.Entry)


def test_there_is_an_entry_of_each_kind():
    assert {kind.kind for kind in ENTRIES} == set(Kind)


@pytest.mark.parametrize("kind", ENTRIES, ids=lambda kind: kind.__name__)
def test_every_field_of_an_entry_is_told(kind):
    values = Values()
    decoded = values.instance(kind)
    plain = json.loads(json.dumps(described(of_decoded(7, decoded))))
    told = list(values_in(plain))
    missing = {name: value for name, value in values.told.items() if value not in told}
    assert not missing
    assert "sequence" not in plain or kind.kind in {Kind.AGENT_BATCH, Kind.INCIDENT}


@pytest.mark.parametrize("number", [value for _, value in pb.AuditKind.items() if value])
def test_every_field_of_a_record_is_told(number):
    values, record = Values(), pb.AuditRecord()
    kinds = {FieldDescriptor.CPPTYPE_STRING: str, FieldDescriptor.CPPTYPE_ENUM: int}
    for field in pb.AuditRecord.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_BYTES:
            setattr(record, field.name, values.of(field.name, bytes))
        elif field.name == "kind":
            record.kind = number
        elif field.name == "outcome":
            record.outcome = 1
            values.told["outcome"] = "done"
        else:
            setattr(record, field.name, values.of(field.name, kinds.get(field.cpp_type, int)))
    events = of_calls(of_record(3, APP, b"\x77" * 16, record), record)
    plain = [json.loads(json.dumps(described(one))) for one in events]
    told = [value for one in plain for value in values_in(one)]
    assert not {name: value for name, value in values.told.items() if value not in told}


def test_an_auditor_sees_why_a_rollout_rolled_back():
    """On which entries, by what verdict, and what was counted on both sides."""
    step = RolloutStep(
        time_ms=1,
        policy_digest=b"\x33" * 32,
        act=Act.ROLLOUT_ROLLED_BACK,
        rollout=b"\x01" * 16,
        revision=9,
        actor="",
        tenant="shop",
        key="orders",
        before_version=3,
        before_algorithm=0,
        after_version=4,
        after_algorithm=0,
        stage=rollouts_pb2.ROLLOUT_STAGE_ROLLED_BACK,
        step=1,
        pace=rollouts_pb2.ROLLOUT_PACE_RUNNING,
        verdict=rollouts_pb2.ROLLOUT_VERDICT_FAILED,
        epoch=12,
        first_leaf=100,
        through_leaf=900,
        after=SideFigures(signed=40, verified=30, verify_failed=10),
        before=SideFigures(signed=360, verified=350),
    )
    event = of_decoded(7, step)
    assert (event.act, event.subject, event.key_version) == (
        "rollout-rolled-back",
        "rolled-back",
        4,
    )
    assert described(event)["details"] == {
        "revision": 9,
        "before_version": 3,
        "after_version": 4,
        "stage": "rolled-back",
        "step": 1,
        "pace": "running",
        "verdict": "failed",
        "first_leaf": 100,
        "through_leaf": 900,
        "after": {**_figures(), "signed": 40, "verified": 30, "verify_failed": 10},
        "before": {**_figures(), "signed": 360, "verified": 350},
    }
    told = dict(pairs(event.details))
    assert told["after.verify_failed"] == 10
    assert "after.refused" not in told


def _figures() -> dict[str, int]:
    return {field.name: 0 for field in fields(SideFigures)}
