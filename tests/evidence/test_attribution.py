"""What a pod refused is found by tenant, key, version and pod, though its agent's records name none
of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest
from capsign_evidence import leaf
from capsign_evidence.archive.attribution import ReadPolicies
from capsign_evidence.archive.scan import find
from capsign_evidence.archive.selection import Selection, select
from capsign_evidence.archive.summary import summarise
from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import failures_pb2
from support.evidence_at_rest import APP, T0, MemoryArchive, batch, intent, record, signed

ANN = "spiffe://capsign.test/people/ann"
POD, CERTIFICATE = b"\x55" * 16, b"\x66" * 32
BOOT, OTHER_BOOT = b"\x71" * 16, b"\x72" * 16
HOUR = 3_600_000


@dataclass
class Document:
    """A policy as whoever calls reads it: a line for each grant."""

    text: str

    @property
    def data(self) -> bytes:
        return self.text.encode()

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.data).digest()


BEFORE = Document("tokens shop orders\nevents shop invoices")
AFTER = Document("tokens bank orders\nevents shop invoices")
"""The grant `tokens` was given to another tenant's key of the same name."""


def grants(document: bytes):
    return [tuple(line.split()) for line in document.decode().splitlines()]


def applied(version: int, document: Document, time_ms: int) -> bytes:
    target = f"{version}/{document.digest.hex()}"
    return leaf.admin(time_ms, document.digest, Act.POLICY_APPLIED, ANN, target, version)


def refusal(sequence: int, grant: str, time_ms: int):
    return record(
        sequence,
        "OUTCOME",
        time_ms,
        intent_id=intent(sequence),
        outcome=failures_pb2.OUTCOME_REFUSED,
        reason=failures_pb2.REASON_RATE_LIMITED,
        grant=grant,
    )


def identity(sequence: int, key: bytes):
    return pb.AuditRecord(
        sequence=sequence, time_ms=T0, kind=pb.AUDIT_KIND_IDENTITY_ISSUED, certificate_key=key
    )


def log(*, tiles: int = 3) -> MemoryArchive:
    """A pod's certificate; two policies; and in the last tile what two lives of agents refused."""
    entries = [signed(number, T0 + number) for number in range(tiles * 256)]
    entries[10] = applied(1, BEFORE, T0)
    entries[11] = leaf.identity_issued(T0 + 11, BEFORE.digest, APP, POD, CERTIFICATE, 1, T0 * 2)
    entries[20] = applied(2, AFTER, T0 + HOUR)
    late = [
        (
            600,
            [
                identity(1, CERTIFICATE),
                refusal(2, "tokens", T0 + 5),
                refusal(3, "events", T0 + 2 * HOUR),
                refusal(4, "tokens", T0 + 2 * HOUR),
            ],
            BOOT,
        ),
        (601, [identity(1, b"\x99" * 32), refusal(2, "events", T0 + 2 * HOUR)], OTHER_BOOT),
    ]
    batches = []
    for index, records, boot in late:
        entry, data = batch(records, T0 + 2 * HOUR, boot=boot, policy=AFTER.digest)
        entries[index] = entry
        batches.append((index, APP, data))
    archive = MemoryArchive(entries, batches)
    archive.held_policies = [BEFORE.data, AFTER.data, b"not one that can be read"]
    for tile in range(tiles):
        held = archive.held[tile * 256 : tile * 256 + 256]
        mine = list(archive.batches(tile * 256, 256))
        archive.held_summaries[tile] = summarise(tile * 256, held, mine).encode()
    return archive


def asked(archive: MemoryArchive, **wanted):
    """Leaf and sequence of each agent's record that is found, the same in every way of looking."""
    found = []
    for summaries in (True, False):
        selection = Selection(
            select({name: [value] for name, value in wanted.items()}), streams=frozenset({"agent"})
        )
        events = find(archive, selection, summaries=summaries, policies=ReadPolicies(grants))
        found.append([(one.index, one.sequence) for one in events])
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"key": "invoices"}, [(600, 3), (601, 2)]),
        ({"tenant": "shop", "key": "invoices", "pod": POD}, [(600, 3)]),
        # written under the policy before, and taken under the one after it
        ({"tenant": "shop", "key": "orders"}, [(600, 2)]),
        ({"tenant": "bank"}, [(600, 2), (600, 4)]),
        # what was refused in the pod had no version yet
        ({"tenant": "shop", "key": "invoices", "version": 3}, [(600, 3), (601, 2)]),
        ({"pod": POD}, [(600, 1), (600, 2), (600, 3), (600, 4)]),
        ({"certificate": CERTIFICATE}, [(600, 1), (600, 2), (600, 3), (600, 4)]),
        ({"key": "invoices", "reason": "RATE_LIMITED", "boot": OTHER_BOOT}, [(601, 2)]),
        ({"key": "nobodys"}, []),
        ({"pod": b"\x56" * 16}, []),
    ],
)
def test_what_a_pod_refused_is_found_by(wanted, expected):
    assert asked(log(), **wanted) == expected


def test_a_record_of_a_signature_is_about_the_version_that_its_entry_names():
    archive = log()
    archive.held[100] = signed(100, T0 + 100, key_version=7)
    done = record(
        1,
        "OUTCOME",
        T0 + 2 * HOUR,
        outcome=failures_pb2.OUTCOME_DONE,
        grant="events",
        leaf_index_plus_one=101,
    )
    entry, data = batch([done], T0 + 2 * HOUR, policy=AFTER.digest)
    archive.held = [*archive.held[:200], entry]
    archive.held_batches = [(200, APP, data)]
    archive.held_summaries.clear()
    assert asked(archive, key="invoices", version=7) == [(200, 1)]
    assert asked(archive, key="invoices", version=8) == []


def test_tiles_that_have_neither_key_nor_grant_are_not_read():
    archive = log(tiles=20)
    selection = Selection(select({"key": ["invoices"]}))
    assert len(list(find(archive, selection, policies=ReadPolicies(grants)))) == 2
    # of the policies and of the pod, of what is found, and a tile in a hundred by mistake
    assert archive.read <= 6 * 256


def test_policies_that_the_archive_lacks_are_told():
    archive = log()
    archive.held_policies = [BEFORE.data]
    told: list[int] = []
    selection = Selection(select({"key": ["invoices"]}))
    found = list(find(archive, selection, policies=ReadPolicies(grants, told.append)))
    # by the documents that it has, as far as they go
    assert (told, [(one.index, one.sequence) for one in found]) == ([1], [(600, 3), (601, 2)])


def test_a_condition_that_needs_no_policy_reads_none():
    archive = log()
    archive.held_policies = []
    told: list[int] = []
    list(
        find(
            archive,
            Selection(select({"workload": [APP]})),
            policies=ReadPolicies(grants, told.append),
        )
    )
    assert told == []
