"""Events are found by what they are about: the same ones with summaries, without them, and by
looking at each.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from capsign_evidence import leaf
from capsign_evidence.archive.entry_events import of_entry
from capsign_evidence.archive.events import UNREADABLE
from capsign_evidence.archive.reading import events
from capsign_evidence.archive.scan import Looked, find
from capsign_evidence.archive.selection import FIELDS, Selection, select
from capsign_evidence.archive.summary import Summary, summarise, terms_of
from capsign_evidence.leaf_kinds import Act
from capsign_wire.types.v1 import failures_pb2
from hypothesis import given
from hypothesis import strategies as st
from support.evidence_at_rest import (
    APP,
    POLICY,
    T0,
    MemoryArchive,
    batch,
    commitment,
    intent,
    record,
    refused,
    signed,
)

OTHER = "spiffe://capsign.test/ns/shop/sa/other"
POD = b"\x55" * 16
VECTORS = [
    bytes.fromhex(one["hex"])
    for one in json.loads((Path(__file__).parents[1] / "vectors" / "leaf.json").read_text())[
        "entries"
    ]
]


def log(*, summarised: bool = True, tiles: int = 5) -> MemoryArchive:
    """Signatures of APP, one a second; in the second tile also another workload's, a refusal, an
    administrative act, a pod's certificate and what it signed, and an agent's batch.
    """
    entries = [signed(number, T0 + 1000 * number) for number in range(tiles * 256 + 100)]
    entries[300] = signed(9_300, T0 + 300_000, workload=OTHER, key="invoices", key_version=7)
    entries[301] = refused(9_301, T0 + 301_000, workload=OTHER)
    entries[302] = leaf.admin(
        T0 + 302_000, POLICY, Act.KEY_REVOKED, "spiffe://capsign.test/people/ann", "shop/orders", 9
    )
    entries[303] = leaf.identity_issued(T0 + 303_000, POLICY, APP, POD, b"\x66" * 32, 1, T0 * 2)
    entries[700] = signed(9_700, T0 + 700_000, cert_key_hash=b"\x66" * 32)
    entry, data = batch(
        [
            record(1, "OPEN", T0),
            record(2, "INTENT", T0 + 299_000, intent_id=intent(7), grant="elsewhere"),
            record(
                3,
                "OUTCOME",
                T0 + 299_500,
                intent_id=intent(7),
                outcome=failures_pb2.OUTCOME_REFUSED,
                reason=failures_pb2.REASON_CONTEXT_NOT_ALLOWED,
            ),
        ],
        T0 + 304_000,
        workload=OTHER,
    )
    entries[304] = entry
    archive = MemoryArchive(entries, [(304, OTHER, data)])
    if summarised:
        for tile in range(tiles):
            held = archive.held[tile * 256 : tile * 256 + 256]
            batches = list(archive.batches(tile * 256, 256))
            archive.held_summaries[tile] = summarise(tile * 256, held, batches).encode()
    return archive


QUESTIONS = {
    "workload": {"workload": [OTHER]},
    "two workloads": {"workload": [OTHER, APP], "reason": ["CONTEXT_NOT_ALLOWED"]},
    "key": {"tenant": ["shop"], "key": ["invoices"]},
    "version": {"version": [7]},
    "intent": {"intent": [intent(7)]},
    "intent of an entry": {"intent": [intent(900, T0 + 900_000)]},
    "commitment": {"commitment": [commitment(1000)]},
    "refused": {"outcome": ["refused"]},
    "acts": {"act": ["key-revoked"]},
    "actor": {"actor": ["spiffe://capsign.test/people/ann"]},
    "pod": {"pod": [POD]},
    "grant of a record": {"grant": ["elsewhere"]},
    "boot": {"boot": [b"\x77" * 16]},
    "what": {"what": ["open", "admin"]},
    "algorithm": {"algorithm": ["ES256"]},
    "nothing": {"workload": ["spiffe://capsign.test/ns/nobody/sa/x"]},
    "purpose": {"purpose": ["order-signing"]},
}
EXPECTED = {
    "workload": 6,
    "two workloads": 1,
    "key": 1,
    "version": 2,
    "intent": 2,
    "intent of an entry": 1,
    "commitment": 1,
    "refused": 2,
    "acts": 1,
    "actor": 1,
    "pod": 2,
    "grant of a record": 1,
    "boot": 4,
    "what": 2,
    "algorithm": 0,
    "nothing": 0,
    "purpose": 1377,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_is_asked_for_is_found_with_summaries_and_without(question):
    selection = Selection(select(QUESTIONS[question]))
    with_summaries, without = log(), log(summarised=False)
    found = list(find(with_summaries, selection))
    assert len(found) == EXPECTED[question]
    assert found == list(find(without, selection))
    assert found == list(find(with_summaries, selection, summaries=False))
    assert sorted(found, key=lambda one: (one.index, one.sequence)) == found
    if question != "pod":
        assert found == [one for one in events(with_summaries) if selection.matches(one)]


def test_tiles_without_what_is_asked_for_are_not_read():
    archive = log(tiles=40)
    assert len(list(find(archive, Selection(select({"workload": [OTHER]}))))) == 6
    # its tile, what has no summary yet, and one tile in a hundred by mistake
    assert archive.read <= 256 + 100 + 2 * 256


def test_a_span_of_time_reads_its_tiles():
    archive = log(tiles=40)
    span = Selection(since_ms=T0 + 3_000_000, until_ms=T0 + 3_010_000)
    assert [one.index for one in find(archive, span)] == list(range(3000, 3010))
    assert archive.read <= 256 + 100


def test_a_record_is_found_at_the_time_that_its_agent_states():
    """Its batch came later: the span of the tile is that of the records too."""
    selection = Selection(select({"workload": [OTHER]}), since_ms=T0, until_ms=T0 + 1)
    assert [one.what for one in find(log(), selection)] == ["open"]


def test_only_one_stream_or_without_something():
    refused_ones = select({"outcome": ["refused"]})
    streams = [
        [one.stream for one in find(log(), Selection(refused_ones, streams=frozenset({stream})))]
        for stream in ("adapter", "agent")
    ]
    assert streams == [["adapter"], ["agent"]]
    shown = Selection(select({"workload": [OTHER]}), hidden=frozenset({"agent-batch", "intent"}))
    assert [one.what for one in find(log(), shown)] == ["signed", "refused", "open", "outcome"]


def test_it_begins_where_it_is_told_and_tells_how_far_it_is():
    said: list[Looked] = []
    selection = Selection(select({"workload": [OTHER]}))
    found = list(find(log(), selection, leaves=range(301, 1380), tell=said.append))
    assert {one.index for one in found} == {301, 304}
    assert said[-1].through == said[-1].size == 1380
    assert 0 < said[-1].read < 1380


def test_what_cannot_be_read_is_never_passed_over():
    """A newer program's entry could be about anything that is asked for."""
    archive = log(summarised=False)
    archive.held[100] = b"\x01\xc8" + archive.held[100][2:]
    for tile in range(5):
        archive.held_summaries[tile] = summarise(
            tile * 256, archive.held[tile * 256 :][:256], archive.batches(tile * 256, 256)
        ).encode()
    found = find(archive, Selection(select({"workload": [OTHER]}), since_ms=T0 * 2))
    assert [(one.index, one.what) for one in found] == [(100, UNREADABLE)]


def test_a_batch_that_is_gone_is_told_by_every_question():
    archive = log()
    archive.held_batches = []
    selection = Selection(select({"workload": [OTHER]}), since_ms=T0 + 304_000)
    assert [(one.what, one.stream) for one in find(archive, selection)] == [
        ("agent-batch", "adapter"),
        (UNREADABLE, "agent"),
    ]
    assert summarise(0, archive.held[:512], []).unreadable


def test_a_summary_has_the_bytes_that_it_always_had():
    """Stores and files hold summaries of earlier releases, and `audit verify` makes them again."""
    held = log().held_summaries
    digest = hashlib.sha256(b"".join(held[tile] for tile in sorted(held))).hexdigest()
    assert digest == "5c1515684c126da817adc2a0585a026a3e6115e96eb849335ccae9e446d8fe42"


@pytest.mark.parametrize("summaries", [True, False])
def test_whose_a_record_is_says_the_log_and_no_column_of_the_store(summaries):
    """Who may write the store could give an agent's records to another workload."""
    archive = log()
    archive.held_batches = [(index, APP, data) for index, _, data in archive.held_batches]
    found = list(find(archive, Selection(select({"workload": [OTHER]})), summaries=summaries))
    assert len(found) == EXPECTED["workload"]
    records = [one for one in events(archive) if one.stream == "agent"]
    assert {one.workload for one in records} == {OTHER}
    assert (
        summarise(256, archive.held[256:512], archive.held_batches).encode()
        == (archive.held_summaries[1])
    )


def test_who_reads_all_is_told_of_everything_that_cannot_be_read():
    """An entry that was cut off, and a batch that was put in another's place: neither has the bytes
    that are asked for.
    """
    archive = log()
    archive.held[100] = archive.held[100][:30]
    archive.held_batches = [(index, name, b"") for index, name, _ in archive.held_batches]
    found = find(archive, Selection(select({"commitment": [b"\x42" * 32]})), summaries=False)
    assert [(one.index, one.what) for one in found] == [(100, UNREADABLE), (304, UNREADABLE)]


def test_a_summary_that_cannot_be_used_is_not_believed():
    archive = log()
    for tile in archive.held_summaries:
        archive.held_summaries[tile] = (b"", b"\x07" * 100, b"\x01\0" + bytes(16))[tile % 3]
    assert len(list(find(archive, Selection(select({"workload": [OTHER]}))))) == 6


def test_a_summary_is_always_the_same_bytes():
    archive = log()
    again = summarise(256, archive.held[256:512], archive.batches(256, 256))
    assert again.encode() == archive.held_summaries[1]
    assert Summary.decode(again.encode()) == again


@pytest.mark.parametrize("entry", VECTORS)
def test_everything_that_can_be_asked_for_of_an_entry_is_in_its_summary(entry):
    """And nothing of it is ruled out by its bytes."""
    event = of_entry(3, entry)
    for summary in (summarise(3, [entry], []), summarise(3, [signed(), entry, entry], [])):
        for name, fields in FIELDS.items():
            for value in filter(None, (getattr(event, field) for field in fields)):
                selection = Selection(select({name: [value]}))
                assert selection.matches(event)
                assert not selection.rules_out(entry)
                assert summary.may_hold(selection, terms_of(selection.conditions)), name


def test_a_batch_is_summarised_as_its_entry_is_decoded():
    """What a life's batches share is decoded once: no byte of one may be taken for another's, nor
    an entry that cannot be read for one that can.
    """
    entry, data = batch([record(1, "OPEN", T0), record(2, "INTENT", T0 + 5, intent_id=intent(7))])
    for at, changed in [(-1, 0), *((at, 1 << bit) for at in range(len(entry)) for bit in (0, 7))]:
        made = bytearray(entry)
        made[at] ^= changed
        event = of_entry(0, bytes(made))
        summary = summarise(0, [entry, bytes(made)], [(0, APP, data), (1, APP, data)])
        whole = event.what == "agent-batch" and made[-33:-1] == entry[-33:-1]
        assert summary.unreadable == (
            (made[1] == entry[1] and not whole) or event.what == UNREADABLE
        )
        assert summary.first_ms == min(event.time_ms, T0, of_entry(0, entry).time_ms)
        for name in ("workload", "boot", "what"):
            if value := getattr(event, FIELDS[name][0]):
                wanted = select({name: [value]})
                assert summary.may_hold(Selection(wanted), terms_of(wanted))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=40))
def test_entries_of_one_group_are_summarised_as_each_alone(made):
    """What a group shares is decoded once: it must not be taken for another group's."""
    entries = [signed(number, T0 + number, key=f"k{key}") for key, number in made]
    summary = summarise(0, entries, [])
    for entry in entries:
        event = of_entry(0, entry)
        wanted = select(
            {
                "key": [event.key],
                "intent": [event.intent_id],
                "commitment": [event.commitment],
                "signature": [event.signature_hash],
            }
        )
        assert summary.may_hold(Selection(wanted), terms_of(wanted))


def test_who_asks_for_what_no_event_has_is_told():
    with pytest.raises(ValueError, match="colour"):
        select({"colour": ["red"]})
    with pytest.raises(ValueError, match="no event has"):
        Selection((frozenset({("colour", "red")}),))
