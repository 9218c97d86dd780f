"""Events as OCSF: every kind of entry and record is valid in the published schema of the version
that it names.
"""

from __future__ import annotations

from functools import cache

from capsign_cli.audit.export_classes import VERSION, classify
from capsign_cli.audit.export_ocsf import ocsf, uid_of
from capsign_evidence.archive.entry_events import word
from capsign_evidence.archive.events import ADAPTER, AGENT, UNREADABLE, Event
from capsign_evidence.archive.record_events import KINDS
from capsign_evidence.drift_leaf import DRIFT_ACTS
from capsign_evidence.incident_leaf import IncidentKind, IncidentState
from capsign_evidence.leaf_kinds import Act, Kind
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

ORIGIN = "log.example/capsign"
WORKLOAD = "spiffe://prod.example/ns/shop/sa/checkout"


@cache
def schema() -> OcsfJsonSchemaEmbedded:
    return OcsfJsonSchemaEmbedded(get_ocsf_schema(VERSION))


@cache
def validator(class_uid: int) -> Draft202012Validator:
    """Of a class, with nothing in an event that the schema does not have."""
    found = schema().get_class_schema(schema().lookup_class_name_from_uid(class_uid))
    found["additionalProperties"] = False
    return Draft202012Validator(found)


def full(**fields) -> Event:
    """An event with every field that its kind could have."""
    given = {
        "index": 12,
        "time_ms": 1_790_000_000_000,
        "stream": ADAPTER,
        "workload": WORKLOAD,
        "tenant": "shop",
        "key": "orders",
        "key_version": 3,
        "algorithm": "Ed25519",
        "grant": "checkout-orders",
        "intent_id": bytes(range(16)),
        "commitment": b"\x01" * 32,
        "pod_uid": bytes(range(16)),
        "actor": "spiffe://prod.example/people/ada",
        "target": "shop/orders/3",
        "digest": b"\x02" * 32,
        "since_ms": 1_789_000_000_000,
        "names_leaf": 3,
        "elapsed_ms": 9,
        "sequence": 4,
    }
    return Event(**(given | fields))


def every() -> list[Event]:
    kinds = {word(kind) for kind in Kind} - {"admin", "incident", "drift"}
    made = [full(what=what, outcome=outcome) for what in kinds for outcome in ("done", "refused")]
    made += [full(what="admin", act=word(act), key="") for act in Act]
    made += [full(what="rollout-step", act=word(act)) for act in Act]
    made += [
        full(what="incident", subject=word(kind), act=word(state))
        for kind in IncidentKind
        for state in IncidentState
    ]
    made += [full(what="drift", subject="tls", act=word(act)) for act in DRIFT_ACTS]
    made += [
        full(what=what, stream=AGENT, outcome=outcome, reason="RATE_LIMITED", actor="")
        for what in KINDS.values()
        for outcome in ("", "done", "refused", "unknown", "unavailable")
    ]
    made += [full(what="of-tomorrow"), full(what=UNREADABLE), full(what=UNREADABLE, stream=AGENT)]
    bare = [
        Event(index=one.index, time_ms=0, stream=one.stream, what=one.what, act=one.act)
        for one in made
    ]
    return made + bare


def test_every_event_is_valid_in_the_published_schema():
    for event in every():
        made = ocsf(ORIGIN, event)
        faults = [error.message for error in validator(made["class_uid"]).iter_errors(made)]
        assert faults == [], event
        assert made["type_uid"] == made["class_uid"] * 100 + made["activity_id"]


def test_captions_are_those_of_the_schema():
    raw = get_ocsf_schema(VERSION)
    classes = {one["uid"]: one for one in raw["classes"].values() if "uid" in one}
    for event in every():
        of, activity = classify(event).of, classify(event).activity
        known = classes[of.uid]
        assert (known["caption"], known["category_uid"]) == (of.name, of.category_uid)
        assert raw["categories"]["attributes"][known["category"]]["caption"] == of.category
        captions = known["attributes"]["activity_id"]["enum"]
        assert captions[str(activity)]["caption"] == of.activities.get(activity, "Other")


def test_what_identifies_an_event_is_its_own_and_stays():
    told = [
        full(what="signed", sequence=0),
        full(what="signed", sequence=0, index=13),
        full(what="outcome", stream=AGENT),
        full(what="outcome", stream=AGENT, sequence=5),
        full(what=UNREADABLE, stream=AGENT, sequence=0),
    ]
    uids = [ocsf(ORIGIN, one)["metadata"]["uid"] for one in told]
    assert uids == [uid_of(ORIGIN, one) for one in told]
    assert len(set(uids)) == len(told)


def test_an_incident_that_ends_closes_what_was_opened():
    found, ended = (
        ocsf(ORIGIN, full(what="incident", subject="silence", act=act, index=index))
        for act, index in (("found", 3), ("ended", 90))
    )
    assert found["finding_info"]["uid"] == ended["finding_info"]["uid"]
    assert (found["activity_name"], ended["activity_name"]) == ("Create", "Close")
    assert (found["status"], ended["status"]) == ("New", "Resolved")


def test_nothing_that_is_known_is_lost():
    event = full(what="signed", outcome="done", signature_hash=b"\x07" * 32)
    made = ocsf(ORIGIN, event)
    assert made["unmapped"]["signature_hash"] == "07" * 32
    assert made["unmapped"]["commitment"] == "01" * 32
    assert made["metadata"]["correlation_uid"] == made["api"]["request"]["uid"]
    assert made["resources"][0]["uid"] == "shop/orders"
