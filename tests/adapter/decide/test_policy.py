"""Policies: what is taken, what is refused, and in what words."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from capsign_adapter.decide import durations
from capsign_adapter.decide.biscuits import MAX_TOKEN_BYTES, Mint
from capsign_adapter.decide.capability import capability_for
from capsign_adapter.decide.policy import KeyKind, Role
from capsign_adapter.decide.policy_lint import lint
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.policy_shape import MAX_BYTES, PolicyError, decode, schema
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.context_rule import ProtocolRule
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import signing_pb2
from hypothesis import given
from hypothesis import strategies as st
from support.handles import EXAMPLE, KEY_HASH, NOW, ORDERS, RELEASE, SERIAL, example, example_with

SCHEMA = Path(__file__).parents[3] / "docs" / "policy.schema.json"


def test_the_example_is_what_it_says():
    policy = example()
    assert policy.digest == hashlib.sha256(EXAMPLE.read_bytes()).digest()
    assert [grant.name for grant in policy.grants_of(ORDERS)] == ["orders-events", "orders-tokens"]
    assert policy.grants_of("spiffe://capsign.test/ns/shop/sa/order") == ()
    grant = policy.grant("orders-events")
    assert grant.algorithms == {
        alg.ALGORITHM_ED25519,
        alg.ALGORITHM_ES256,
        alg.ALGORITHM_HS256,
        alg.ALGORITHM_ML_DSA_65,
    }
    assert grant.protocols == (
        ProtocolRule("outbox", ("writer",), ("1",)),
        ProtocolRule("webhook", ("relay", "sender"), ("1", "2")),
    )
    assert (grant.transcript, grant.ttl_ms, grant.rate_per_second, grant.burst, grant.max_uses) == (
        signing_pb2.TRANSCRIPT_RULE_ALLOWED,
        900_000,
        5000,
        5000,
        0,
    )
    release = policy.grant("release-signing")
    assert (release.min_custody, release.ttl_ms, release.max_uses) == (
        alg.CUSTODY_CLASS_HSM_DIRECT,
        600_000,
        1000,
    )
    assert policy.key("acme", "releases").kind is KeyKind.DIRECT
    assert policy.key("other", "releases") is None
    assert policy.roles_of("spiffe://capsign.test/people/olga") == {Role.OPERATOR}
    assert policy.roles_of(RELEASE) == frozenset()
    assert (policy.tls.min, policy.floor_bits, policy.limits.clock_skew_ms) == ("1.3", 128, 30_000)


def test_the_example_is_wise():
    assert lint(example()) == []


WRONG = [
    ("version: 1", "version: 2", "version: '2' is not one of the values. Use one of: 1."),
    ("tenants:", "tenant:", "There is no field 'tenant' here. Did you mean 'tenants'?"),
    ("ttl: 15m", "tll: 15m", "grants[0]: There is no field 'tll' here. Did you mean 'ttl'?"),
    (
        "ttl: 15m",
        "ttl: 15",
        "grants[0].ttl: This must be text, and was read as a whole number. Give it a "
        "unit, as in 15m.",
    ),
    (
        "ttl: 15m",
        "ttl: 15 minutes",
        "grants[0].ttl: This must be a duration such as 30s, 15m or 1h30m. Correct it.",
    ),
    (
        "horizon: 87600h",
        "horizon: 99999999h",
        "keys[0].lifetime.horizon: 99999999h is out of range. Use 0ms to 876000h.",
    ),
    (
        "cryptoperiod: 8760h",
        "cryptoperiod: 59s",
        "keys[0].lifetime.cryptoperiod: 59s is out of range. Use 1m to 87600h.",
    ),
    ("ttl: 15m", "ttl: 9s", "grants[0].ttl: 9s is out of range. Use 10s to 24h."),
    ("ttl: 15m", "ttl: 25h", "grants[0].ttl: 25h is out of range. Use 10s to 24h."),
    ("ttl: 15m", "ttl: 15m\n    ttl: 16m", "Line 32 repeats the key 'ttl'. Keep one of the two."),
    (
        "ttl: 15m",
        "ttl: &a 15m",
        "Line 31 has an anchor or alias. Write the value out where it is needed.",
    ),
    (
        "- name: acme",
        "- name: Acme",
        "tenants[0].name: This must be a name: lower-case letters, digits, '.', '_' and "
        "'-', starting with a letter or digit."
        " Correct it.",
    ),
    (
        "- name: acme",
        "- name: acme\n  - name: acme",
        "tenants: The name 'acme' is used 2 times. Give each its own name.",
    ),
    (
        "name: orders-events",
        "name: orders-tokens",
        "grants: The name 'orders-tokens' is used 2 times. Give each its own name.",
    ),
    (
        "key: orders",
        "key: order",
        "grants[0].key: Tenant 'acme' has no key 'order'. Did you mean 'orders'?",
    ),
    (
        "tenant: acme\n    key",
        "tenant: acne\n    key",
        "grants[0].tenant: There is no tenant 'acne'. Did you mean 'acme'?",
    ),
    (
        "kind: direct",
        "kind: dirct",
        "keys[1].kind: 'dirct' is not one of the values. Use one of: derived, direct.",
    ),
    (
        "kind: direct\n    algorithms: [ES384]",
        "kind: direct\n    algorithms: [ES384, ES256]",
        "keys[1].algorithms: A direct key is one key pair and serves one algorithm."
        " Make one key for each algorithm, or use kind: derived.",
    ),
    (
        "kind: direct",
        "kind: derived",
        "keys[1].algorithms: ES384 cannot be had from a derived key. Make a key with "
        "kind: direct for it.",
    ),
    (
        "algorithms: [Ed25519, ES256]\n",
        "algorithms: [Ed25519, ES384]\n",
        "grants[0].algorithms: The key acme/orders does not serve ES384."
        " Take it out, or add it to the key, which serves: Ed25519, ES256, HS256, ML-DSA-65.",
    ),
    (
        "algorithms: [Ed25519, ES256]\n",
        "algorithms: [Ed25519, ES265]\n",
        "grants[0].algorithms: There is no algorithm 'ES265'. Did you mean 'ES256'?",
    ),
    (
        "rate: {per_second: 5000, burst: 10000}",
        "min_custody: hsm-derived",
        "grants[0].min_custody: Ed25519 from a derived key can have adapter-memory at "
        "best, below hsm-derived."
        " Lower it, or use a direct key and an algorithm that tokens have.",
    ),
    (
        "floor_bits: 128",
        "floor_bits: 192",
        "keys[0].algorithms: Ed25519 has 128 bits of strength, below the floor of 192."
        " Use a stronger algorithm, or lower algorithms.floor_bits.",
    ),
    (
        "floor_bits: 128",
        "floor_bits: 64",
        "algorithms.floor_bits: '64' is not one of the values. Use one of: 112, 128, 192.",
    ),
    ('min: "1.3"', 'min: "1.2"', "tls.min: '1.2' is not one of the values. Use one of: 1.3."),
    (
        "workloads: [spiffe://capsign.test/ns/ci/sa/release]",
        "workloads: []",
        "grants[2].workloads: This is empty. Fill it in.",
    ),
    (
        "spiffe://capsign.test/ns/ci/sa/release",
        "https://capsign.test/ns/ci/sa/release",
        "grants[2].workloads[0]: This must be a SPIFFE ID: spiffe://<trust "
        "domain>/<path>. Correct it.",
    ),
    (
        "spiffe://capsign.test/ns/ci/sa/release",
        "spiffe://capsign.tests/ns/ci",
        "grants[2].workloads[0]: 'spiffe://capsign.tests/ns/ci' is not in the trust "
        "domain 'capsign.test'."
        " It must start with 'spiffe://capsign.test/'.",
    ),
    (
        "spiffe://capsign.test/ns/ci/sa/release",
        "spiffe://capsign.test/ns/../sa",
        "grants[2].workloads[0]: A SPIFFE ID has no '.' or '..' in its path. Write the path out.",
    ),
    (
        "spiffe://capsign.test/ns/ci/sa/release",
        "spiffe://capsign.test/ns/*",
        "This must be a SPIFFE ID",
    ),
    ('versions: ["1.0"]', "versions: [1]", "was read as a whole number. Put it in quotes."),
    ("roles: [issuer], ", "", "grants[0].protocols[0]: The field 'roles' is missing. Add it."),
    (
        "per_second: 10}",
        "per_second: 0}",
        "grants[2].rate.per_second: This number must be at least 1. Correct it.",
    ),
    (
        "message_max: 65536",
        "message_max: 65537",
        "limits.message_max: This number must be at most 65536. Correct it.",
    ),
    ("clock_skew: 30s", "clock_skew: 1h", "limits.clock_skew: 1h is out of range. Use 0ms to 5m."),
    (
        "clock_skew: 30s",
        "clock_skew: null",
        "limits.clock_skew: This must be text, and is nothing.",
    ),
    (
        "role: operator",
        "role: oprator",
        "roles[0].role: 'oprator' is not one of the values. Use one of: approver, auditor",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "words"), WRONG, ids=[f"{new.strip()[:40]}" for _, new, _ in WRONG]
)
def test_a_wrong_policy_is_refused_with_path_and_remedy(old, new, words):
    with pytest.raises(PolicyError) as caught:
        example_with(old, new)
    assert words in str(caught.value)


def test_all_problems_are_named_at_once_up_to_a_bound():
    with pytest.raises(PolicyError) as caught:
        parse_policy(EXAMPLE.read_bytes().replace(b"tenant: acme", b"tenant: nobody"))
    assert len(caught.value.problems) == 5
    keys = ", ".join(
        f"{{tenant: b, name: k{index}, kind: derived, algorithms: [ES256]}}" for index in range(50)
    )
    text = f"version: 1\ntrust_domain: x\ntenants: [{{name: a}}]\nkeys: [{keys}]\n"
    with pytest.raises(PolicyError) as caught:
        parse_policy(text.encode())
    assert str(caught.value).splitlines()[-1] == "... and 30 more."


DOCUMENTS = [
    (b"", "The document is empty."),
    (b"[]", "The document is a list. A policy is a mapping that starts with 'version: 1'."),
    (b"a: 1\n---\nb: 1", "There is more than one document."),
    (b"[" * 100_000, "Line 1 is nested more than 16 deep."),
    (b"{" * 100_000, "nested more than 16 deep."),
    (b"a: !!python/object/apply:os.system [x]", "Line 1 has a tag."),
    (b"a: !!int 3", "Line 1 has a tag."),
    (b"\xff\xfe", "Byte 0 is not UTF-8."),
    (b"a: \x00", "The document is not YAML: control characters are not allowed."),
    (b"a: {", "Line 2, column 1 is not YAML: did not find expected node content."),
    (b"'", "is not YAML"),
    (b"a: *b", "Line 1 has an anchor or alias."),
    (b"a: &x {b: 1}\nc: *x", "Line 1 has an anchor or alias."),
    (b"<<: {a: 1}", "Line 1 merges with '<<'."),
    (b"[a]: 1", "Line 1 has a list or mapping as a key."),
    (b'a: "x\\0y"', "Line 1 has a line break or control character inside a value."),
    (b'trust_domain: "capsign.test\\n"', "Line 1 has a line break or control character"),
    (b"#" * (MAX_BYTES + 1), "The document has 4194305 bytes; at most 4194304 are taken."),
    (b"- 1\n" * 500_001, "the document has more than 500000 values."),
]


@pytest.mark.parametrize(("data", "words"), DOCUMENTS, ids=[words[:32] for _, words in DOCUMENTS])
def test_what_is_not_a_document_is_refused_within_bounds(data, words):
    with pytest.raises(PolicyError) as caught:
        parse_policy(data)
    message = str(caught.value)
    assert words in message
    assert len(message) < 500


@given(st.binary(max_size=200))
def test_any_bytes_are_a_policy_or_a_policy_error(data):
    with pytest.raises(PolicyError):
        parse_policy(data)


@given(st.integers(0, len(EXAMPLE.read_bytes()) - 1), st.integers(0, 255))
def test_any_byte_of_a_policy_may_be_wrong(index, value):
    data = bytearray(EXAMPLE.read_bytes())
    data[index] = value
    try:
        policy = parse_policy(bytes(data))
    except PolicyError:
        pass
    else:
        assert policy.digest == hashlib.sha256(data).digest()


def test_words_stay_words():
    # YAML 1.1 reads `no` as false, 1.3 as a float and 2026-11-22 as a date. A policy says what it
    # says.
    policy = example_with("roles: [builder]", "roles: [no, on, 2026-11-22, 1.3e1, 0o17, 1_000]")
    assert policy.grant("release-signing").protocols[0].roles == (
        "0o17",
        "1.3e1",
        "1_000",
        "2026-11-22",
        "no",
        "on",
    )


GRANT = """
  - {name: g%05d, tenant: acme, key: orders, workloads: [spiffe://capsign.test/ns/n%d/sa/w],
     purpose: p, algorithms: [ES256],
     protocols: [{protocol: jwt, roles: [issuer], versions: ["1"]}],
     ttl: 15m, rate: {per_second: 100}}"""
HEAD = """version: 1
trust_domain: capsign.test
tenants: [{name: acme}]
keys: [{tenant: acme, name: orders, kind: derived, algorithms: [ES256]}]
grants:"""


def test_ten_thousand_grants_are_taken_and_one_more_is_not():
    text = HEAD + "".join(GRANT % (index, index // 200) for index in range(10_000))
    policy = parse_policy(text.encode())
    assert len(policy.grants) == 10_000
    assert len(policy.grants_of("spiffe://capsign.test/ns/n7/sa/w")) == 200
    with pytest.raises(PolicyError, match="more than 10000 items"):
        parse_policy((text + GRANT % (10_000, 51)).encode())


def test_no_workload_has_more_grants_than_one_answer_carries():
    with pytest.raises(PolicyError, match="has 257 grants; at most 256 are handed out"):
        parse_policy((HEAD + "".join(GRANT % (index, 0) for index in range(257))).encode())


def test_the_largest_grant_that_is_taken_fits_into_a_token_with_room_to_narrow():
    # All names as long as they may be, and as many roles and versions as the bound on a rule lets
    # through.
    names = [f"{index:02d}" + "x" * 62 for index in range(16)]
    workload = "spiffe://capsign.test/" + "w" * (255 - len("spiffe://capsign.test/"))
    text = """version: 1
trust_domain: capsign.test
tenants: [{name: %s}]
keys: [{tenant: %s, name: %s, kind: derived, algorithms: [Ed25519, ES256, HS256, ML-DSA-65]}]
grants:
  - {name: %s, tenant: %s, key: %s, workloads: ["%s"], purpose: %s,
     algorithms: [Ed25519, ES256, HS256, ML-DSA-65],
     protocols: %s}"""
    tenant, key, grant, purpose = ("t" * 64, "k" * 64, "g" * 64, "p" * 64)
    largest = 0
    for roles in range(1, 17):
        for versions in (1, 8, 16):
            wide = [f"{index:02d}" + "v" * 30 for index in range(versions)]
            protocols = json.dumps(
                [{"protocol": "q" * 64, "roles": names[:roles], "versions": wide}]
            )
            try:
                policy = parse_policy(
                    (
                        text
                        % (tenant, tenant, key, grant, tenant, key, workload, purpose, protocols)
                    ).encode()
                )
            except PolicyError as error:
                assert "bytes of a handle; at most 1536 fit. Split the grant" in str(error)  # noqa: PT017
                continue
            token = Mint(bytes(32)).mint(
                capability_for(policy.grants[0], workload, KEY_HASH, SERIAL, NOW)
            )
            largest = max(largest, len(token))
    assert 2000 < largest <= MAX_TOKEN_BYTES - 512


@pytest.mark.parametrize("kind", KeyKind)
def test_each_kind_of_key_offers_what_the_algorithm_table_says(kind):
    for number, row in ALGORITHMS.items():
        offered = kind.custody(number)
        assert offered <= row.custody
        assert (alg.CUSTODY_CLASS_HSM_DIRECT in offered) == (
            kind is KeyKind.DIRECT and bool(offered)
        )
    assert all(any(kind.custody(number) for kind in KeyKind) for number in ALGORITHMS)


@given(st.integers(1, 10**9))
def test_durations_come_back(millis):
    assert durations.to_millis(durations.to_text(millis)) == millis


@pytest.mark.parametrize(
    ("text", "millis"), [("1h30m", 5_400_000), ("250ms", 250), ("0s", 0), ("1m1ms", 60_001)]
)
def test_durations(text, millis):
    assert durations.to_millis(text) == millis


@pytest.mark.parametrize("text", ["", "1", "m", "1 m", "-1s", "1d", "1.5s", "1s\n", "\u0661s"])
def test_no_durations(text):
    with pytest.raises(ValueError, match="is not a duration"):
        durations.to_millis(text)


UNWISE = [
    ("ttl: 15m", "ttl: 2h", "grant orders-tokens: Its handles live longer than an hour."),
    ("rate: {per_second: 10}", "transcript: allowed", "grant release-signing: It has no rate."),
    ("- name: acme", "- name: acme\n  - name: idle", "tenant idle: It has no key."),
    (
        "    name: releases\n",
        "    name: r2\n    kind: direct\n    algorithms: [ES256]\n  - tenant: acme\n    "
        "name: releases\n",
        "key acme/r2",
    ),
    ("floor_bits: 128", "floor_bits: 112", "algorithms.floor_bits: It is below 128 bits."),
    ("clock_skew: 30s", "clock_skew: 2m", "limits.clock_skew: It is above a minute."),
    ("people/pia", "people/olga", "It both acts and approves."),
    ("people/anna", "people/olga", "It audits what it does."),
    ("people/pia", "ns/ci/sa/release", "It is a workload and administers too."),
    ("role: auditor", "role: developer", "Nobody can read the evidence."),
]


@pytest.mark.parametrize(
    ("old", "new", "words"), UNWISE, ids=[words[:40] for _, _, words in UNWISE]
)
def test_what_is_unwise_is_found(old, new, words):
    assert any(words in str(finding) for finding in lint(example_with(old, new)))


def test_the_published_schema_is_the_one_in_force():
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(schema())), (
        "regenerate docs/policy.schema.json from policy_shape.schema()"
    )


def places(part: object, path: tuple[object, ...] = ()):
    """Each place of a document that holds a value; of a list, in its first element."""
    if path:
        yield path
    inside: Any = ()
    if isinstance(part, dict):
        inside = part.items()
    elif isinstance(part, list):
        inside = enumerate(part[:1])
    for step, each in inside:
        yield from places(each, (*path, step))


ODD: tuple[Any, ...] = (
    "",
    "?",
    "200%",
    "nan",
    "-1",
    "99999999999999999999",
    1,
    -1,
    True,
    None,
    [],
    {},
    [[]],
    ["?"],
)
WHOLE = json.loads(msgspec.json.encode(decode(EXAMPLE.read_bytes())))
"""The example with every field that it leaves out."""


@pytest.mark.parametrize("path", list(places(WHOLE)), ids=lambda path: ".".join(map(str, path)))
def test_what_is_odd_anywhere_is_told_in_words(path):
    """A percentage that is none was a KeyError, and the adapter answered INTERNAL: the words for a
    pattern were looked for by the pattern as a message quotes it.
    """
    for value in ODD:
        document = copy.deepcopy(WHOLE)
        part: Any = document
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = value
        told = ""
        try:
            parse_policy(json.dumps(document).encode())
        except PolicyError as error:
            told = str(error)
        assert "regex" not in told
        assert "Expected `" not in told


def test_a_percentage_that_is_none_is_told_in_words():
    for field, bad in (("error_rate", "200%"), ("verify_failure_rate", "nan")):
        with pytest.raises(PolicyError, match="a percentage such as 1%"):
            example_with("version: 1", f"version: 1\nrollouts: {{triggers: {{{field}: {bad!r}}}}}")
