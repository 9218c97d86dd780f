"""Every field of every message has a bound, and refuses just above it. Walked from the descriptors,
so a new field is covered.
"""

from __future__ import annotations

import pytest
from capsign_wire import bounds
from capsign_wire.adapter.v1 import (
    admin_pb2,
    approvals_pb2,
    capability_pb2,
    evidence_pb2,
    inventory_pb2,
    keys_pb2,
    policy_pb2,
    revocations_pb2,
    rollouts_pb2,
    signing_pb2,
    tenants_pb2,
)
from capsign_wire.advice import ADVICE, Given
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import bounds_pb2, failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_signing
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

FILES = (
    agent_pb2,
    admin_pb2,
    approvals_pb2,
    capability_pb2,
    evidence_pb2,
    inventory_pb2,
    keys_pb2,
    policy_pb2,
    revocations_pb2,
    rollouts_pb2,
    signing_pb2,
    tenants_pb2,
    types_signing,
    failures_pb2,
)
OPTIONS = {
    "capsign.types.v1.ReasonRow"
}  # describe an enum value in a .proto; they are never received
DESCRIPTORS = [
    one
    for file in FILES
    for one in file.DESCRIPTOR.message_types_by_name.values()
    if one.full_name not in OPTIONS
]
FIELDS = [field for one in DESCRIPTORS for field in one.fields]
TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
BAD_TEXT = {
    bounds_pb2.FORMAT_UNSPECIFIED: ["\x00", "a\n", "\x1b[2J", "é", "\x7f"],
    bounds_pb2.FORMAT_NAME: ["-a", ".a", "A", "a b", "a/b", "a\n", "é"],
    bounds_pb2.FORMAT_OPAQUE: ["a+b", "a=", "a b", "a\n", "é"],
    bounds_pb2.FORMAT_SPIFFE_ID: [
        "spiffe://",
        "https://t/a",
        "spiffe://T/a",
        "spiffe://t/a b",
        "spiffe://t/a\n",
        "spiffe://t",
    ],
    bounds_pb2.FORMAT_TRACEPARENT: [
        TRACEPARENT.upper(),
        TRACEPARENT.replace("00-", "01-", 1),
        TRACEPARENT[:-1] + "\n",
    ],
}


def bound_of(field):
    return field.GetOptions().Extensions[bounds_pb2.bound]


def is_text(field):
    return field.type == FieldDescriptor.TYPE_STRING


def is_sized(field):
    return is_text(field) or field.type == FieldDescriptor.TYPE_BYTES


def content(field, size):
    """A value of that many bytes that fits the field's format, where the format has one of that
    size.
    """
    if not is_text(field):
        return b"\xff" * size
    if bound_of(field).format == bounds_pb2.FORMAT_TRACEPARENT:
        return (TRACEPARENT + "0" * size)[:size]
    if bound_of(field).format == bounds_pb2.FORMAT_SPIFFE_ID:
        return ("spiffe://capsign.test/" + "x" * size)[:size]
    return "x" * size


def smallest(field):
    """A value that passes."""
    if is_sized(field):
        return content(field, max(1, bound_of(field).min_len))
    return 1 if field.message_type is None else good(field.message_type)


def good(descriptor):
    """The smallest message of that type that passes."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        bound = bound_of(field)
        if field.is_repeated:
            put(message, field, smallest(field), bound.min_items)
        elif field.containing_oneof is None and (
            bound.required or (bound.min_len and not bound.optional_value)
        ):
            put(message, field, smallest(field))
    return message


def put(message, field, value, items=1):
    if field.is_repeated:
        del getattr(message, field.name)[:]
        getattr(message, field.name).extend([value] * items)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)
    return message


def with_value(field, value, items=None):
    many = max(1, bound_of(field).min_items) if items is None else items
    return put(good(field.containing_type), field, value, many)


def where(field):
    return f"{field.name}[0]" if field.is_repeated else field.name


def name_of(field):
    return field.full_name.removeprefix("capsign.")


def refused(message):
    with pytest.raises(FailureError) as caught:
        bounds.check(message)
    return caught.value.reason, caught.value.field


SIZED = [field for field in FIELDS if is_sized(field)]
TEXTS = [field for field in FIELDS if is_text(field)]
REPEATED = [field for field in FIELDS if field.is_repeated]
ENUMS = [field for field in FIELDS if field.enum_type is not None and not field.is_repeated]
NUMBERS = [
    field
    for field in FIELDS
    if bound_of(field).max_value or field.type == FieldDescriptor.TYPE_UINT64
]
NEVER_STORED = {"batch_id", "call_id"}
MALFORMED, TOO_LARGE = failures_pb2.REASON_INPUT_MALFORMED, failures_pb2.REASON_INPUT_TOO_LARGE


def test_there_is_something_to_walk():
    assert len(DESCRIPTORS) > 60
    assert len(SIZED) > 60
    assert len(REPEATED) > 20


@pytest.mark.parametrize(
    "descriptor", DESCRIPTORS, ids=lambda one: one.full_name.removeprefix("capsign.")
)
def test_the_smallest_good_message_passes(descriptor):
    bounds.check(good(descriptor))


@pytest.mark.parametrize("field", SIZED, ids=name_of)
def test_the_largest_size_is_taken_and_one_byte_more_is_not(field):
    most = bound_of(field).max_len
    assert most > 0
    bounds.check(with_value(field, content(field, most)))
    assert refused(with_value(field, content(field, most + 1))) == (TOO_LARGE, where(field))


@pytest.mark.parametrize("field", [one for one in SIZED if bound_of(one).min_len > 1], ids=name_of)
def test_one_byte_less_than_the_least_is_refused(field):
    assert refused(with_value(field, content(field, bound_of(field).min_len - 1))) == (
        MALFORMED,
        where(field),
    )


@pytest.mark.parametrize("field", REPEATED, ids=name_of)
def test_the_largest_number_is_taken_and_one_more_is_not(field):
    most = bound_of(field).max_items
    assert most > 0
    bounds.check(with_value(field, smallest(field), most))
    assert refused(with_value(field, smallest(field), most + 1)) == (TOO_LARGE, field.name)


@pytest.mark.parametrize("field", [one for one in REPEATED if bound_of(one).min_items], ids=name_of)
def test_too_few_items_are_refused(field):
    assert refused(with_value(field, smallest(field), bound_of(field).min_items - 1)) == (
        MALFORMED,
        field.name,
    )


@pytest.mark.parametrize("field", NUMBERS, ids=name_of)
def test_numbers_above_their_bound_are_refused(field):
    """Where nothing is stated, it is what a store can hold: a `GetPolicy` of version 2**63 ended as
    INTERNAL, and so did a list from before 2**63.
    """
    most = bound_of(field).max_value or bounds.MAX_NUMBER
    bounds.check(with_value(field, most))
    if field.name in NEVER_STORED:
        assert most == 2**64 - 1
    else:
        assert refused(with_value(field, most + 1)) == (TOO_LARGE, where(field))


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        (policy_pb2.GetPolicyRequest(version=2**64 - 1), Given.NUMBER),
        (capability_pb2.IssueHandlesRequest(grants=["a"] * 300), Given.LIST),
        (capability_pb2.IssueHandlesRequest(grants=["a" * 65]), Given.TEXT),
        (agent_pb2.SignItem(intent_id=bytes(16), message=bytes(65_537)), Given.MESSAGE),
    ],
)
def test_what_is_too_large_is_advised_by_what_it_is(message, advice):
    with pytest.raises(FailureError) as caught:
        bounds.check(message)
    assert caught.value.reason == TOO_LARGE
    assert caught.value.advice == ADVICE[TOO_LARGE][advice]
    assert caught.value.detail.endswith(caught.value.advice)


@pytest.mark.parametrize("field", ENUMS, ids=name_of)
def test_an_enum_value_of_another_version_is_refused(field):
    assert refused(with_value(field, 9999)) == (MALFORMED, field.name)


@pytest.mark.parametrize("field", [one for one in FIELDS if bound_of(one).required], ids=name_of)
def test_a_required_field_that_is_missing_is_refused(field):
    message = good(field.containing_type)
    message.ClearField(field.name)
    assert refused(message) == (MALFORMED, field.name)


@pytest.mark.parametrize("field", TEXTS, ids=name_of)
def test_characters_outside_the_format_are_refused_and_not_repeated(field):
    bound = bound_of(field)
    for text in BAD_TEXT[bound.format]:
        if not bound.min_len <= len(text) <= bound.max_len:
            continue
        with pytest.raises(FailureError) as caught:
            bounds.check(with_value(field, text))
        assert (caught.value.reason, caught.value.field) == (MALFORMED, where(field)), text
        assert not any(character in str(caught.value) for character in "\x00\n\x1b\x7fé")


@pytest.mark.parametrize(
    "kind", [agent_pb2.SignBatchRequest, signing_pb2.SignRequest, evidence_pb2.AuditBatch]
)
@settings(max_examples=200)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(kind, data):
    try:
        bounds.parse(kind, data)
    except FailureError as error:
        reason = error.reason
        assert reason in {MALFORMED, TOO_LARGE}


def test_the_path_leads_to_the_item():
    batch = agent_pb2.SignBatchRequest(
        groups=[good(agent_pb2.SignGroup.DESCRIPTOR) for _ in range(3)]
    )
    batch.groups[2].items[0].intent_id = b"short"
    assert refused(batch) == (MALFORMED, "groups[2].items[0].intent_id")


def test_a_million_items_are_refused_by_their_number():
    group = good(agent_pb2.SignGroup.DESCRIPTOR)
    put(
        group,
        agent_pb2.SignGroup.DESCRIPTOR.fields_by_name["items"],
        agent_pb2.SignItem(),
        1_000_000,
    )
    assert refused(group) == (TOO_LARGE, "items")


def test_a_repeated_field_without_a_bound_is_a_defect():
    """The check itself refuses to be compiled for such a field, so it cannot be forgotten."""
    from google.protobuf import descriptor_pb2

    with pytest.raises(TypeError, match="max_items"):
        bounds.check(descriptor_pb2.FileDescriptorSet())


def test_many_items_are_held_against_the_same_bounds_as_few():
    """They are checked field by field; what is wrong with one of them is told as for one."""
    records = [
        evidence_pb2.AuditRecord(
            sequence=number,
            kind=evidence_pb2.AUDIT_KIND_INTENT,
            intent_id=bytes([number] * 16) if number % 3 else b"",
            grant=f"orders-{number % 5}",
        )
        for number in range(1, 200)
    ]
    batch = evidence_pb2.AuditBatch(boot_id=b"b" * 16, records=records)
    bounds.check(batch)
    for field, wrong in {"kind": 0, "intent_id": b"short", "grant": "Of Others"}.items():
        bad = evidence_pb2.AuditBatch()
        bad.CopyFrom(batch)
        setattr(bad.records[57], field, wrong)
        assert refused(bad) == (MALFORMED, f"records[57].{field}")


def test_of_many_items_what_none_has_set_is_judged_too():
    """Such fields are not read of each."""
    batch = evidence_pb2.AuditBatch(boot_id=b"b" * 16)
    for number in range(1, 200):
        batch.records.add(sequence=number)
    assert refused(batch) == (MALFORMED, "records[0].kind")
    for record in batch.records:
        record.kind = evidence_pb2.AUDIT_KIND_ALIVE
    bounds.check(batch)
    batch.records[150].certificate_key = b"short"
    assert refused(batch) == (MALFORMED, "records[150].certificate_key")
