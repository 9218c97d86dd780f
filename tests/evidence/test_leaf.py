"""Entries of the log: canonical, bounded, and without a place for anything a caller may choose
freely (I9).
"""

import dataclasses
import json
from pathlib import Path

import pytest
from capsign_evidence import leaf
from capsign_evidence.drift_leaf import DRIFT_ACTS, Drifted, DriftKind, digest_of, named
from capsign_evidence.incident_leaf import IncidentKind, IncidentLeaf, IncidentState
from capsign_evidence.leaf import Proposed
from capsign_evidence.leaf_fields import MAX_ENTRY_LEN, LeafError
from capsign_evidence.leaf_kinds import PROPOSAL_ACTS, Act, GlassReason, Kind, ProposedAct
from capsign_evidence.leaf_reader import (
    Admin,
    AgentBatch,
    IdentityIssued,
    IdentityRefused,
    Never,
    Proposal,
    Refused,
    RefusedUnbound,
    Signed,
    SignedTwice,
    decode,
    describe,
)
from capsign_evidence.retired_leaf import Retired
from capsign_evidence.rollout_leaf import (
    STEP_ACTS,
    RolloutStep,
    SideFigures,
    VerificationsReported,
)
from capsign_evidence.signing_leaf import SecondKey, SigningLeaf
from capsign_wire.adapter.v1 import admin_pb2, approvals_pb2, inventory_pb2
from capsign_wire.algorithms import ALGORITHMS, CUSTODY_NAMES
from capsign_wire.failures import REASONS
from capsign_wire.types.v1 import failures_pb2
from hypothesis import given
from hypothesis import strategies as st

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "leaf.json").read_text())

names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
identities = st.from_regex(
    r"spiffe://[a-z0-9._-]{1,40}(/[A-Za-z0-9._-]{1,40}){1,5}", fullmatch=True
)
hashes = st.binary(min_size=32, max_size=32)
ids = st.binary(min_size=16, max_size=16)
times = st.integers(0, 2**64 - 1)
counters = st.integers(0, 2**64 - 1)
reasons = st.sampled_from(sorted(REASONS))
complete_groups = st.builds(
    SigningLeaf,
    workload=identities,
    tenant=names,
    key=names,
    purpose=names,
    grant=names,
    handle_serial=ids,
    policy_digest=hashes,
    cert_key_hash=hashes,
    key_version=st.integers(1, 2**32 - 1),
    algorithm=st.sampled_from(sorted(ALGORITHMS)),
    custody=st.sampled_from(sorted(CUSTODY_NAMES)),
    context_digest=hashes,
    caller=st.just("") | names,
)
second_keys = st.builds(
    SecondKey,
    st.integers(1, 2**32 - 1),
    st.sampled_from(sorted(ALGORITHMS)),
    st.sampled_from(sorted(CUSTODY_NAMES)),
    hashes,
)
open_groups = st.builds(
    SigningLeaf,
    workload=identities,
    tenant=names,
    key=names,
    purpose=names,
    grant=names,
    handle_serial=ids,
    policy_digest=hashes,
    cert_key_hash=st.just(b"") | hashes,
    key_version=st.integers(0, 3),
    algorithm=st.sampled_from([0, *ALGORITHMS]),
    custody=st.sampled_from([0, *CUSTODY_NAMES]),
    context_digest=st.just(b"") | hashes,
    caller=st.just("") | names,
)
targets = (
    st.just("*")
    | names
    | st.builds("{}/{}".format, names, names)
    | st.builds("{}/{}/{}".format, names, names, st.integers(1, 99))
    | identities
)
sequences = st.tuples(st.integers(1, 2**64 - 1), st.integers(1, 2**64 - 1)).map(sorted)
versions = st.integers(0, 2**32 - 1)
small = st.integers(0, 255)
sides = st.builds(SideFigures, *[counters] * 7)
subjects = st.lists(names, min_size=1, max_size=3).map("/".join)
entries = st.one_of(
    st.builds(
        lambda when, policy, ends, root: Retired(when, policy, ends[0], ends[1], root, ends[2]),
        times,
        hashes,
        st.lists(counters, min_size=3, max_size=3, unique=True).map(sorted),
        hashes,
    ),
    st.builds(
        lambda spans, *fields: IncidentLeaf(*fields[:9], *spans, *fields[9:]),
        sequences,
        times,
        hashes,
        st.sampled_from(IncidentKind),
        st.sampled_from(IncidentState),
        st.just("") | identities,
        st.just(b"") | ids,
        st.just(b"") | hashes,
        st.just(b"") | ids,
        counters,
        versions,
        times,
    ),
    st.builds(
        Drifted,
        times,
        hashes,
        st.sampled_from(sorted(DRIFT_ACTS)),
        st.sampled_from(DriftKind),
        subjects,
        names,
        hashes,
        counters,
    ),
    st.builds(
        RolloutStep,
        times,
        hashes,
        st.sampled_from(sorted(map(Act, STEP_ACTS))),
        ids,
        versions,
        st.just("") | identities,
        names,
        names,
        versions,
        st.sampled_from([0, *ALGORITHMS]),
        versions,
        st.sampled_from([0, *ALGORITHMS]),
        *[small] * 4,
        *[counters] * 3,
        sides,
        sides,
    ),
    st.builds(
        VerificationsReported,
        times,
        hashes,
        identities,
        names,
        names,
        versions,
        st.sampled_from(sorted(ALGORITHMS)),
        versions,
        versions,
    ),
    st.builds(Signed, times, complete_groups, ids, hashes, hashes),
    st.builds(SignedTwice, times, complete_groups, ids, hashes, hashes, second_keys, hashes),
    st.builds(Refused, times, open_groups, ids, st.just(b"") | hashes, reasons),
    st.builds(Never, times, open_groups, ids),
    st.builds(RefusedUnbound, times, hashes, identities, st.just(b"") | ids, reasons),
    st.builds(Admin, times, hashes, st.sampled_from(Act), identities, targets, counters),
    st.builds(
        Proposal,
        times,
        hashes,
        st.sampled_from(sorted(PROPOSAL_ACTS)),
        identities,
        st.builds(Proposed, ids, st.sampled_from(ProposedAct), targets, hashes),
        st.sampled_from(GlassReason),
        counters,
    ),
    st.builds(
        IdentityIssued, times, hashes, identities, ids, hashes, st.integers(0, 2**32 - 1), times
    ),
    st.builds(
        IdentityRefused,
        times,
        hashes,
        st.just("") | identities,
        st.just(b"") | ids,
        st.just(b"") | hashes,
        reasons,
    ),
    sequences.flatmap(
        lambda pair: st.builds(
            AgentBatch,
            times,
            hashes,
            identities,
            ids,
            st.just(pair[0]),
            st.just(pair[1]),
            hashes,
            st.booleans(),
        )
    ),
)

GROUP = SigningLeaf(
    workload="spiffe://capsign.test/ns/shop/sa/checkout",
    cert_key_hash=b"\x11" * 32,
    tenant="shop",
    key="orders",
    key_version=3,
    purpose="order-signing",
    algorithm=1,
    custody=1,
    context_digest=b"\x22" * 32,
    policy_digest=b"\x33" * 32,
    grant="checkout-orders",
    handle_serial=b"\x44" * 16,
    caller="app",
)
TIME = 1_700_000_000_000
INTENT = bytes.fromhex("018bcfe568007000800000000000002a")
SIGNED = GROUP.prepare().signed(TIME, INTENT, b"\x55" * 32, b"\x66" * 32)


@given(entries)
def test_what_is_written_is_read_back(entry):
    encoded = entry.encode()
    assert decode(encoded) == entry
    assert len(encoded) <= MAX_ENTRY_LEN
    json.dumps(describe(entry))


@given(entries, entries)
def test_different_entries_have_different_bytes(one, other):
    assert (one == other) == (one.encode() == other.encode())


@given(entries, st.data())
def test_an_altered_byte_never_reads_as_the_same_entry(entry, data):
    """Whatever one byte is changed to: it is refused, or it is another entry with exactly those
    bytes.
    """
    encoded = bytearray(entry.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read = decode(bytes(encoded))
    except LeafError:
        return
    assert read != entry
    assert read.encode() == encoded


@given(entries, st.data())
def test_a_cut_or_longer_entry_is_refused(entry, data):
    encoded = entry.encode()
    with pytest.raises(LeafError):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(LeafError):
        decode(encoded + data.draw(st.binary(min_size=1, max_size=40)))


@given(st.binary(max_size=MAX_ENTRY_LEN + 10))
def test_noise_is_refused_by_one_kind_of_error(noise):
    for data in (noise, b"\x01" + noise, *(bytes((1, kind)) + noise for kind in Kind)):
        try:
            decode(data)
        except LeafError:
            continue
        raise AssertionError("noise was read as an entry")


@pytest.mark.parametrize(
    "vector", VECTORS["entries"], ids=lambda vector: vector["description"]["kind"]
)
def test_published_examples(vector):
    """The bytes in tests/vectors/leaf.json are a contract: a change of them is a new version of the
    format.
    """
    entry = decode(bytes.fromhex(vector["hex"]))
    assert describe(entry) == vector["description"]
    assert entry.encode().hex() == vector["hex"]


def test_the_published_examples_cover_every_kind():
    assert {vector["description"]["kind"] for vector in VECTORS["entries"]} == {
        kind.name.lower().replace("_", "-") for kind in Kind
    }


def test_the_example_in_the_documentation_is_the_one_the_code_writes():
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    squeezed = "".join(text.split())
    assert SIGNED.hex() in squeezed


def test_a_label_that_is_no_name_stands_in_no_entry():
    """Labels in a token are other people's text (I9): an entry names such an object by a digest."""
    assert named("capsign/acme/orders/1/attest") == "capsign/acme/orders/1/attest"
    for label in ("Free text", "", "x" * 300, "a//b", "a/b\n", "/".join("a" * 9), "sch\u00f6n"):
        name = named(label)
        assert name.startswith("object/")
        Drifted(
            TIME,
            bytes(32),
            Act.UNKNOWN_OBJECT,
            DriftKind.UNKNOWN_OBJECT,
            name,
            "object",
            INTENT * 2,
            0,
        ).encode()
    assert named("Free text") != named("Free  text")


@pytest.mark.parametrize(
    ("field", "value"),
    [("subject", "Free text"), ("aspect", "a/b"), ("act", Act.KEY_CREATED), ("digest", b"")],
)
def test_a_difference_that_does_not_fit_is_refused(field, value):
    entry = Drifted(TIME, bytes(32), Act.DRIFT_FOUND, DriftKind.TLS, "a/b", "oldest", bytes(32), 0)
    with pytest.raises(LeafError, match=field):
        dataclasses.replace(entry, **{field: value}).encode()


def test_the_digest_of_a_difference_tells_its_fields_apart():
    assert digest_of(DriftKind.TLS, "a", "b", "c", "d") != digest_of(
        DriftKind.TLS, "a", "bc", "", "d"
    )


def test_the_longest_entry_has_the_length_that_is_stated():
    longest = dataclasses.replace(
        GROUP,
        workload="spiffe://t/" + "a" * 244,
        tenant="a" * 64,
        key="a" * 64,
        purpose="a" * 64,
        grant="a" * 64,
        caller="a" * 64,
    )
    assert len(longest.prepare().signed(TIME, INTENT, bytes(32), bytes(32))) == 791 <= MAX_ENTRY_LEN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workload", ""),
        ("workload", "checkout"),
        ("workload", "spiffe://capsign.test"),
        ("workload", "spiffe://capsign.test/a b"),
        ("workload", "spiffe://capsign.test/a\n"),
        ("workload", "spiffe://capsign.test/" + "a" * 250),
        ("tenant", ""),
        ("tenant", "Shop"),
        ("tenant", "sho\u0440"),
        ("key", "a/b"),
        ("key", "a" * 65),
        ("purpose", "free text"),
        ("grant", "x\x00"),
        ("caller", "-app"),
        ("handle_serial", b""),
        ("handle_serial", bytes(17)),
        ("policy_digest", bytes(31)),
        ("cert_key_hash", bytes(20)),
        ("context_digest", bytes(33)),
        ("key_version", -1),
        ("key_version", 1 << 32),
        ("algorithm", 200),
        ("custody", 200),
    ],
)
def test_a_field_that_does_not_fit_is_refused_by_name_and_not_repeated(field, value):
    with pytest.raises(LeafError, match=field) as caught:
        dataclasses.replace(GROUP, **{field: value}).prepare()
    if isinstance(value, str) and len(value) > 3:
        assert value not in str(caught.value)


@pytest.mark.parametrize(
    "field", ["cert_key_hash", "key_version", "algorithm", "custody", "context_digest"]
)
def test_a_signature_is_recorded_only_with_everything_it_was_made_under(field):
    empty = b"" if isinstance(getattr(GROUP, field), bytes) else 0
    prepared = dataclasses.replace(GROUP, **{field: empty}).prepare()
    assert decode(prepared.refused(TIME, INTENT, b"", failures_pb2.REASON_KEY_NOT_ACTIVE))
    with pytest.raises(LeafError):
        prepared.signed(TIME, INTENT, bytes(32), bytes(32))
    with pytest.raises(LeafError):
        prepared.signed_each(TIME, [INTENT], [bytes(32)], [bytes(32)])


@pytest.mark.parametrize(
    "lengths",
    [(15, 32, 32), (17, 31, 32), (16, 31, 33), (16, 33, 31), (0, 48, 32)],
    ids=lambda lengths: str(lengths),
)
def test_fields_of_an_item_cannot_run_into_each_other(lengths):
    with pytest.raises(LeafError):
        GROUP.prepare().signed(TIME, *(bytes(length) for length in lengths))
    good = (INTENT, bytes(32), bytes(32))
    columns = zip(good, [bytes(length) for length in lengths], strict=True)
    with pytest.raises(LeafError):
        GROUP.prepare().signed_each(TIME, *map(list, columns))


def test_many_signatures_are_recorded_as_each_would_be():
    own = [(bytes([n]) * 16, bytes([n + 1]) * 32, bytes([n + 2]) * 32) for n in range(5)]
    prepared = GROUP.prepare()
    each = [prepared.signed(TIME, *parts) for parts in own]
    assert prepared.signed_each(TIME, *map(list, zip(*own, strict=True))) == each


@pytest.mark.parametrize(
    "target",
    ["", "a b", "a/b/c/d/e", "Free text", "*/a", "a//b", "spiffe://x", "a\n", "/a", "x" * 65],
)
def test_an_administrative_target_is_never_free_text(target):
    with pytest.raises(LeafError, match="target"):
        leaf.admin(TIME, bytes(32), Act.KEY_CREATED, "spiffe://capsign.test/op", target, 0)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (1, 1 << 64)])
def test_sequence_numbers_count_up_from_one(first, last):
    with pytest.raises(LeafError):
        leaf.agent_batch(
            TIME,
            bytes(32),
            "spiffe://capsign.test/a",
            bytes(16),
            first,
            last,
            bytes(32),
            closes=False,
        )


@pytest.mark.parametrize("reason", [0, 9999])
def test_a_reason_outside_the_table_is_refused(reason):
    with pytest.raises(LeafError, match="reason"):
        GROUP.prepare().refused(TIME, INTENT, b"", reason)
    encoded = bytearray(
        GROUP.prepare().refused(TIME, INTENT, b"", failures_pb2.REASON_INTENT_NEVER)
    )
    encoded[-2:] = reason.to_bytes(2, "big")
    with pytest.raises(LeafError, match="reason"):
        decode(bytes(encoded))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [(0, 2, "version 2"), (1, 0, "kind 0"), (1, 99, "kind 99")],
)
def test_an_entry_of_a_newer_program_is_refused_and_says_so(at, value, message):
    encoded = bytearray(SIGNED)
    encoded[at] = value
    with pytest.raises(LeafError, match=message):
        decode(bytes(encoded))


def test_a_flag_has_two_values():
    encoded = bytearray(
        leaf.agent_batch(
            TIME, bytes(32), "spiffe://capsign.test/a", bytes(16), 1, 2, bytes(32), closes=True
        )
    )
    encoded[-1] = 2
    with pytest.raises(LeafError, match="canonical"):
        decode(bytes(encoded))


def test_revocation_acts_follow_the_kinds_of_the_wire():
    kinds = {value.number for value in admin_pb2.RevocationKind.DESCRIPTOR.values if value.number}
    assert {act - 10 for act in Act if 10 < act < 20} == kinds
    assert Act(10 + admin_pb2.REVOCATION_KIND_EVERYTHING).name == "EVERYTHING_REVOKED"


def test_people_read_names_and_not_numbers():
    assert describe(decode(SIGNED)) == {
        "kind": "signed",
        "time_ms": TIME,
        "workload": "spiffe://capsign.test/ns/shop/sa/checkout",
        "cert_key_hash": "11" * 32,
        "tenant": "shop",
        "key": "orders",
        "key_version": 3,
        "purpose": "order-signing",
        "algorithm": "Ed25519",
        "custody": "adapter-memory",
        "context_digest": "22" * 32,
        "policy_digest": "33" * 32,
        "grant": "checkout-orders",
        "handle_serial": "44" * 16,
        "caller": "app",
        "intent_id": INTENT.hex(),
        "commitment": "55" * 32,
        "signature_hash": "66" * 32,
    }


def test_what_a_refusal_does_not_know_is_left_out():
    group = dataclasses.replace(
        GROUP, key_version=0, algorithm=0, custody=0, context_digest=b"", caller=""
    )
    described = describe(
        decode(group.prepare().refused(TIME, INTENT, b"", failures_pb2.REASON_HANDLE_EXPIRED))
    )
    assert described["reason"] == "HANDLE_EXPIRED"
    assert not {
        "key_version",
        "algorithm",
        "custody",
        "context_digest",
        "caller",
        "commitment",
    } & set(described)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workload", ""),
        ("workload", "free text"),
        ("pod_uid", b""),
        ("pod_uid", bytes(15)),
        ("key_hash", b""),
        ("key_hash", bytes(33)),
        ("authority", 1 << 32),
        ("not_after_ms", -1),
    ],
)
def test_a_certificate_is_recorded_only_with_whom_it_was_issued_to(field, value):
    good = {
        "workload": GROUP.workload,
        "pod_uid": bytes(16),
        "key_hash": bytes(32),
        "authority": 1,
        "not_after_ms": TIME,
    }
    assert decode(leaf.identity_issued(TIME, bytes(32), **good))
    with pytest.raises(LeafError, match=field):
        leaf.identity_issued(TIME, bytes(32), **{**good, field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("workload", "eve"), ("pod_uid", bytes(36)), ("key_hash", bytes(20)), ("reason", 0)],
)
def test_who_is_refused_a_certificate_writes_no_words_of_their_own(field, value):
    good = {
        "workload": "",
        "pod_uid": b"",
        "key_hash": b"",
        "reason": failures_pb2.REASON_SERVICE_TOKEN_REFUSED,
    }
    assert describe(decode(leaf.identity_refused(TIME, bytes(32), **good))) == {
        "kind": "identity-refused",
        "time_ms": TIME,
        "policy_digest": "00" * 32,
        "reason": "SERVICE_TOKEN_REFUSED",
    }
    with pytest.raises(LeafError, match=field):
        leaf.identity_refused(TIME, bytes(32), **{**good, field: value})


def test_a_pod_uid_reads_as_kubectl_shows_it():
    uid = bytes.fromhex("4f9c1b2ad7e84a11b6f30c5d9e8f7a60")
    entry = leaf.identity_issued(TIME, bytes(32), GROUP.workload, uid, bytes(32), 1, TIME)
    assert describe(decode(entry))["pod_uid"] == "4f9c1b2a-d7e8-4a11-b6f3-0c5d9e8f7a60"


def test_an_overlong_entry_is_refused_before_it_is_read():
    with pytest.raises(LeafError, match="at most 1024 bytes"):
        decode(SIGNED + bytes(MAX_ENTRY_LEN))


def test_numbers_of_proposals_are_those_of_the_wire():
    def of_wire(enum, prefix):
        return {value.name.removeprefix(prefix): value.number for value in enum.values}

    acts = of_wire(approvals_pb2.ProposalAct.DESCRIPTOR, "PROPOSAL_ACT_")
    assert {act.name: act.value for act in ProposedAct} == {
        name: number for name, number in acts.items() if number
    }
    reasons = of_wire(approvals_pb2.GlassReason.DESCRIPTOR, "GLASS_REASON_")
    assert {reason.name: reason.value for reason in GlassReason if reason} == {
        name: number for name, number in reasons.items() if number
    }


def test_an_act_that_is_none_of_a_proposal_is_refused():
    what = Proposed(INTENT, ProposedAct.POLICY, "policy/2", bytes(32))
    with pytest.raises(LeafError, match="act"):
        leaf.proposal(TIME, bytes(32), Act.KEY_CREATED, "spiffe://t/op", what, GlassReason.NONE, 1)


def test_numbers_of_incidents_are_those_of_the_wire():
    wire = {
        name.removeprefix("INCIDENT_KIND_"): n for name, n in inventory_pb2.IncidentKind.items()
    }
    assert {kind.name: kind.value for kind in IncidentKind} | {"UNSPECIFIED": 0} == wire
