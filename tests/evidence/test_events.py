"""Both streams in one form: what was recorded is told, all of it, and what cannot be read too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from capsign_evidence import leaf
from capsign_evidence.archive.entry_events import of_entry
from capsign_evidence.archive.events import Event, described, time_text
from capsign_evidence.archive.reading import events
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import decode, describe
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2
from support.evidence_at_rest import (
    APP,
    POLICY,
    T0,
    MemoryArchive,
    batch,
    intent,
    record,
    refused,
    signed,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "leaf.json").read_text())["entries"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda one: one["description"]["kind"])
def test_an_event_tells_what_the_entry_records(vector):
    """Under the same names and in the same words as `describe`, which is what `docs/formats.md`
    publishes.
    """
    entry = bytes.fromhex(vector["hex"])
    event, plain = of_entry(7, entry), describe(decode(entry))
    plain.setdefault("algorithm", plain.get("verified_algorithm", ""))
    plain.setdefault("reason", plain.get("glass", ""))
    assert (event.index, event.stream, event.what) == (7, "adapter", plain["kind"])
    told = described(event)
    if event.what == "admin":
        assert told["target"] == plain["target"]
        return
    for name in ("workload", "tenant", "key", "purpose", "grant", "actor", "reason", "algorithm"):
        assert told.get(name, "") == plain.get(name, ""), name
    for name in ("context_digest", "commitment", "signature_hash", "policy_digest", "pod_uid"):
        assert told.get(name, "") == plain.get(name, ""), name
    if "intent_id" in plain:
        assert told["intent_id"].replace("-", "") == plain["intent_id"]
    assert event.time_ms == plain["time_ms"]


@pytest.mark.parametrize(
    ("act", "target", "told"),
    [
        (Act.KEY_REVOKED, "shop/orders", ("shop", "orders", 0)),
        (Act.KEY_DESTROYED, "shop/orders/12", ("shop", "orders", 12)),
        (Act.TENANT_REVOKED, "shop", ("shop", "", 0)),
        (Act.EVERYTHING_REVOKED, "*", ("", "", 0)),
        (Act.POLICY_APPLIED, "1/00ff", ("", "", 0)),
        (Act.KEY_MOVE_REFUSED, "shop", ("", "", 0)),
    ],
)
def test_an_act_is_about_what_it_was_on(act, target, told):
    """Who asked about a key was not told that somebody had revoked it."""
    event = of_entry(0, leaf.admin(T0, POLICY, act, "spiffe://capsign.test/people/ann", target, 1))
    assert (event.tenant, event.key, event.key_version) == told
    assert event.target == target


def test_an_act_on_a_workload_or_a_grant_is_about_it():
    ann = "spiffe://capsign.test/people/ann"
    on_workload = of_entry(0, leaf.admin(T0, POLICY, Act.WORKLOAD_REVOKED, ann, APP, 1))
    on_grant = of_entry(0, leaf.admin(T0, POLICY, Act.GRANT_REVOKED, ann, "orders-jwt", 1))
    assert (on_workload.workload, on_grant.grant) == (APP, "orders-jwt")


def test_every_field_is_told_once():
    """A field that an event has and nothing shows would be evidence that nobody sees."""
    full = Event(
        **{
            name: {"str": "x", "bytes": b"\1" * 32, "bool": True}.get(kind, 1)
            for name, kind in Event.__annotations__.items()
        }
        | {"details": {"stage": "canary"}}
    )
    assert set(described(full)) == {"time", *Event.__annotations__}
    assert described(replace(full, names_leaf=0))["names_leaf"] == 0
    assert set(described(Event(index=0, time_ms=0, stream="adapter", what="signed"))) == {
        "time",
        "index",
        "stream",
        "what",
    }


def test_records_follow_the_entry_of_their_batch():
    entry, data = batch(
        [
            record(1, "OPEN"),
            record(2, "INTENT", intent_id=intent(5), grant="checkout-orders", caller="app"),
            record(
                3,
                "OUTCOME",
                T0 + 3,
                intent_id=intent(5),
                outcome=failures_pb2.OUTCOME_REFUSED,
                reason=failures_pb2.REASON_RATE_LIMITED,
                algorithm=algorithms_pb2.ALGORITHM_ED25519,
                leaf_index_plus_one=1,
                elapsed_ms=12,
            ),
            record(4, "CLOSE"),
        ]
    )
    archive = MemoryArchive([signed(1), entry, refused(2)], [(1, APP, data)])
    found = list(events(archive))
    assert [(one.index, one.what, one.sequence) for one in found] == [
        (0, "signed", 0),
        (1, "agent-batch", 1),
        (1, "open", 1),
        (1, "intent", 2),
        (1, "outcome", 3),
        (1, "close", 4),
        (2, "refused", 0),
    ]
    outcome = found[4]
    assert (outcome.stream, outcome.workload, outcome.boot_id) == ("agent", APP, b"\x77" * 16)
    assert (outcome.outcome, outcome.reason) == ("refused", "RATE_LIMITED")
    assert (outcome.intent_id, outcome.algorithm) == (intent(5), "Ed25519")
    assert (outcome.names_leaf, outcome.elapsed_ms, outcome.time_ms) == (0, 12, T0 + 3)
    assert [one.index for one in events(archive, 2)] == [2]


def test_what_cannot_be_read_is_an_event_too():
    """A newer program's entry, a damaged one, a batch that is gone, or is another than its entry
    says: whoever asks what happened must see that something did.
    """
    entry, data = batch([record(1, "OPEN")])
    later = bytearray(signed(1))
    later[1] = 200
    other = batch([record(1, "CLOSE")])[1]
    archive = MemoryArchive(
        [bytes(later), b"\1", signed(2)[:-1], entry, entry, entry],
        [(3, APP, other), (5, APP, b"\xff" + data)],
    )
    found = [one for one in events(archive) if one.what != "agent-batch"]
    assert {one.what for one in found} == {"unreadable"}
    assert [(one.index, one.stream, one.workload) for one in found] == [
        (0, "adapter", ""),
        (1, "adapter", ""),
        (2, "adapter", ""),
        (3, "agent", APP),
        (4, "agent", APP),
        (5, "agent", APP),
    ]
    assert found[0].time_ms == T0


def test_a_record_of_a_kind_that_is_not_known_is_unreadable_and_names_its_intent():
    records = [pb.AuditRecord(sequence=1, time_ms=T0, kind=99, intent_id=intent(3))]
    entry, data = batch(records)
    (found,) = [
        one for one in events(MemoryArchive([entry], [(0, APP, data)])) if one.stream == "agent"
    ]
    assert (found.what, found.intent_id, found.sequence) == ("unreadable", intent(3), 1)


def test_a_record_of_no_calendar_is_of_the_last_day_of_one():
    """2^63 milliseconds, which an adapter took once, ended the timeline and the Parquet export."""
    entry, data = batch([pb.AuditRecord(sequence=1, time_ms=1 << 63, kind=pb.AUDIT_KIND_OPEN)])
    (found,) = [
        one for one in events(MemoryArchive([entry], [(0, APP, data)])) if one.stream == "agent"
    ]
    assert time_text(found.time_ms).startswith("9999-12-31T23:59:59")


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (T0 + 7, "2026-09-21T14:13:20.007Z"),
        (1 << 63, str(1 << 63)),
    ],
)
def test_times_are_rfc_3339_in_utc(time_ms, text):
    assert time_text(time_ms) == text
