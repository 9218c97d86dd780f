"""How a store keeps an agent's batch: shorter, and the same bytes when it is read."""

import zlib

import pytest
from capsign_evidence.packed_batch import MAX_BATCH, pack, unpack
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st


def a_report(signatures):
    """What an agent tells of some signatures: an intent and an outcome of each."""
    kinds = (pb.AUDIT_KIND_INTENT, pb.AUDIT_KIND_OUTCOME)
    records = [
        pb.AuditRecord(
            sequence=2 * number + place,
            time_ms=1_790_000_000_000 + number,
            kind=kind,
            intent_id=zlib.crc32(bytes([number])).to_bytes(4, "big") * 4,
            grant="service-1-documents",
            caller="app",
        )
        for number in range(signatures)
        for place, kind in enumerate(kinds, 1)
    ]
    return pb.AuditBatch(boot_id=bytes(16), records=records).SerializeToString()


@given(st.binary(max_size=2000))
def test_what_is_kept_is_read_as_it_was(batch):
    assert unpack(pack(batch)) == batch


@pytest.mark.parametrize("batch", [b"\x00", b"\x00" * 100, bytes(MAX_BATCH), b"\n" * MAX_BATCH])
def test_also_where_it_looks_packed_or_is_as_long_as_may_be(batch):
    assert unpack(pack(batch)) == batch


def test_a_report_of_a_few_signatures_takes_less_than_half():
    report = a_report(7)
    assert len(pack(report)) < len(report) / 2


def test_what_earlier_releases_kept_is_the_batch():
    report = a_report(7)
    assert unpack(report) == report


KEPT = pack(a_report(7))


@pytest.mark.parametrize(
    "changed",
    [
        KEPT + b"\x00",
        KEPT[:-1],
        KEPT[:1],
        b"\x00\xff" + KEPT[2:],
        b"\x00" + zlib.compress(bytes(MAX_BATCH + 1), wbits=-15),
    ],
    ids=["longer", "cut off", "empty", "no stream", "unpacks beyond the bound"],
)
def test_what_was_changed_is_given_as_it_is_and_has_another_hash(changed):
    assert unpack(changed) == changed
