"""Each change of a policy is same, stronger, weaker or broader; one table has the rule for every
field of the schema.
"""

from __future__ import annotations

import json
import typing
from pathlib import Path

import msgspec
import pytest
import yaml
from capsign_adapter.decide import policy_document as doc
from capsign_adapter.decide.policy_change import Change, Name, Strength, weakens
from capsign_adapter.decide.policy_diff import MAX_WORDS, line_of, lines, summary
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.policy_plan import touched
from capsign_adapter.decide.policy_shape import PolicyError, decode
from capsign_adapter.decide.policy_strength import TABLE, changes
from support.adapter_rig import POLICY

GOLDEN = Path(__file__).parent / "policy_diff"
EXAMPLE = Path(__file__).parents[3] / "docs/examples/policy.yaml"
SAME, STRONGER, WEAKER, BROADER = Strength


def parts(of: type) -> set[type]:
    """Every part that a document may have in it."""
    found, waiting = {of}, [of]
    while waiting:
        for field in msgspec.structs.fields(waiting.pop()):
            for one in structs_in(field.type):
                if one not in found:
                    found.add(one)
                    waiting.append(one)
    return found


def structs_in(annotation: object) -> set[type]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return {annotation}
    return set().union(*(structs_in(each) for each in typing.get_args(annotation)), set())


def test_every_field_of_the_schema_has_a_rule():
    schema = {part: set(part.__struct_fields__) for part in parts(doc.PolicyDocument)}
    assert len(schema) >= 10
    assert {part: set(rules) for part, rules in TABLE.items()} == schema


def test_a_field_without_a_rule_does_not_pass_as_unchanged(monkeypatch):
    rules = dict(TABLE[doc.LimitsPart])
    del rules["clock_skew"]
    broken = {**TABLE, doc.LimitsPart: rules}
    monkeypatch.setattr("capsign_adapter.decide.policy_strength.TABLE", broken)
    with pytest.raises(KeyError):
        changes(decode(POLICY.encode()), decode(POLICY.encode()))


BASE = yaml.safe_load(POLICY)


def edited(edit) -> bytes:
    """The policy of the rig, changed."""
    copy = yaml.safe_load(POLICY)
    edit(copy)
    return json.dumps(copy).encode()  # YAML without anchors


def grant(number: int = 0, **fields):
    return lambda policy: policy["grants"][number].update(fields)


def top(**fields):
    return lambda policy: policy.update(fields)


def key(**fields):
    return lambda policy: policy["keys"][0].update(fields)


def two_tenants(**fields):
    """Each tenant has keys of the same names, and the first grant names one of them."""

    def edit(policy):
        orders = policy["keys"][0]
        payments = {**orders, "name": "payments"}
        policy["tenants"].append({"name": "shop"})
        policy["keys"] += [payments, *({**one, "tenant": "shop"} for one in (orders, payments))]
        policy["grants"][0].update(fields)

    return edit


def people(**roles):
    parts = [{"role": role, "identities": who} for role, who in roles.items()]
    return lambda policy: policy.update(roles=parts)


A, B = "spiffe://capsign.test/a", "spiffe://capsign.test/b"
JWT = {"protocol": "jwt", "roles": ["issuer", "audience"], "versions": ["1"]}
CANARY = [{"percent": 10, "bake": "10m"}, {"percent": 50, "bake": "10m"}]
DAILY = {"begin": "02:00", "end": "04:00"}
ALL_DAY = {"begin": "02:00", "end": "02:00"}

KINDS = {
    "a longer ttl": (grant(ttl="15m"), grant(ttl="1h"), WEAKER),
    "a subject": (grant(workloads=[A]), grant(workloads=[A, B]), BROADER),
    "a grant's algorithm": (
        grant(algorithms=["ES256"]),
        grant(algorithms=["ES256", "HS256"]),
        BROADER,
    ),
    "a key's algorithm": (key(algorithms=["ES256"]), key(algorithms=["ES256", "HS256"]), BROADER),
    "a floor": (top(algorithms={"floor_bits": 128}), top(algorithms={"floor_bits": 112}), WEAKER),
    "custody": (grant(min_custody="hsm-derived"), grant(min_custody="adapter-memory"), WEAKER),
    "a transcript": (grant(transcript="required"), grant(transcript="allowed"), BROADER),
    "another transcript": (grant(transcript="required"), grant(transcript="forbidden"), BROADER),
    "a rate": (grant(rate={"per_second": 5}), grant(rate={"per_second": 6, "burst": 5}), BROADER),
    "a burst": (
        grant(rate={"per_second": 5, "burst": 5}),
        grant(rate={"per_second": 5, "burst": 9}),
        BROADER,
    ),
    "a rate of none": (grant(rate={"per_second": 5}), grant(rate=None), BROADER),
    "uses": (grant(max_uses=3), grant(max_uses=None), BROADER),
    "a role in a protocol": (
        grant(protocols=[{**JWT, "roles": ["issuer"]}]),
        grant(protocols=[JWT]),
        BROADER,
    ),
    "a version of a protocol": (
        grant(protocols=[JWT]),
        grant(protocols=[{**JWT, "versions": ["1", "2"]}]),
        BROADER,
    ),
    "a protocol": (
        grant(protocols=[JWT]),
        grant(protocols=[JWT, {**JWT, "protocol": "tls"}]),
        BROADER,
    ),
    "a grant": (lambda p: p["grants"].pop(), lambda p: None, BROADER),
    "a grant's tenant": (two_tenants(), two_tenants(tenant="shop"), BROADER),
    "a grant's key": (two_tenants(), two_tenants(key="payments"), BROADER),
    "a grant's purpose": (grant(), grant(purpose="release"), BROADER),
    "a key's kind": (key(kind="direct"), key(kind="derived"), WEAKER),
    "the trust domain": (top(), top(trust_domain="another.test"), WEAKER),
    "a key": (
        lambda p: None,
        lambda p: p["keys"].append({**p["keys"][1], "name": "another"}),
        BROADER,
    ),
    "a tenant": (lambda p: None, lambda p: p["tenants"].append({"name": "new"}), BROADER),
    "an operator": (people(operator=[A]), people(operator=[A, B]), BROADER),
    "a role": (people(operator=[A]), people(operator=[A], responder=[B]), BROADER),
    "an auditor less": (people(auditor=[A, B]), people(auditor=[A]), WEAKER),
    "nobody who approves": (people(approver=[A], operator=[B]), people(operator=[B]), WEAKER),
    "skew": (top(limits={"clock_skew": "30s"}), top(limits={"clock_skew": "1m"}), WEAKER),
    "retention": (top(limits={}), top(limits={"intent_retention": "48h"}), BROADER),
    "a larger message": (top(limits={"message_max": 9}), top(limits={"message_max": 10}), BROADER),
    "rotation": (key(rotation={"every": "24h"}), key(rotation=None), WEAKER),
    "a rotation's jitter": (
        key(rotation={"every": "24h"}),
        key(rotation={"every": "24h", "jitter": "1h"}),
        WEAKER,
    ),
    "a rotation's window": (
        key(rotation={"every": "24h"}),
        key(rotation={"every": "24h", "window": DAILY}),
        WEAKER,
    ),
    "another window": (
        key(rotation={"every": "24h", "window": DAILY}),
        key(rotation={"every": "24h", "window": {"begin": "23:00", "end": "01:00"}}),
        SAME,
    ),
    "a shorter window": (
        key(rotation={"every": "24h", "window": DAILY}),
        key(rotation={"every": "24h", "window": {**DAILY, "end": "02:10"}}),
        WEAKER,
    ),
    "a slower rotation": (key(rotation={"every": "24h"}), key(rotation={"every": "25h"}), WEAKER),
    "a longer cryptoperiod": (
        key(lifetime={"cryptoperiod": "8760h"}),
        key(lifetime={}),
        WEAKER,
    ),
    "a nearer horizon": (key(lifetime={"horizon": "87600h"}), key(lifetime={}), WEAKER),
    "a shorter canary": (
        top(rollouts={"canary": CANARY}),
        top(rollouts={"canary": CANARY[:1]}),
        WEAKER,
    ),
    "a shorter bake": (
        top(rollouts={"canary": CANARY}),
        top(rollouts={"canary": [CANARY[0], {**CANARY[1], "bake": "5m"}]}),
        WEAKER,
    ),
    "a first step with more": (
        top(rollouts={"canary": CANARY}),
        top(rollouts={"canary": [{**CANARY[0], "percent": 20}, CANARY[1]]}),
        WEAKER,
    ),
    "a shorter propagation": (top(rollouts={}), top(rollouts={"propagation": "5m"}), WEAKER),
    "readiness that is only shown": (
        top(rollouts={"readiness": "required"}),
        top(rollouts={}),
        WEAKER,
    ),
    "a shorter time of two signatures": (
        top(rollouts={}),
        top(rollouts={"dual_sign": "0s"}),
        WEAKER,
    ),
    "a shorter promotion": (top(rollouts={}), top(rollouts={"promote": "1m"}), WEAKER),
    "a shorter retirement": (top(rollouts={}), top(rollouts={"retire": "1m"}), WEAKER),
    "a trigger's rate": (
        top(rollouts={"triggers": {}}),
        top(rollouts={"triggers": {"error_rate": "2%"}}),
        WEAKER,
    ),
    "a trigger's verifications": (
        top(rollouts={"triggers": {}}),
        top(rollouts={"triggers": {"verify_failure_rate": "2%"}}),
        WEAKER,
    ),
    "a trigger's latency": (
        top(rollouts={"triggers": {}}),
        top(rollouts={"triggers": {"p99": "0s"}}),
        WEAKER,
    ),
    "a trigger's samples": (
        top(rollouts={"triggers": {}}),
        top(rollouts={"triggers": {"min_samples": 1}}),
        WEAKER,
    ),
    "a trigger's samples of verifiers": (
        top(rollouts={"triggers": {}}),
        top(rollouts={"triggers": {"min_verifications": 1}}),
        WEAKER,
    ),
    "optional verifications": (
        top(rollouts={"triggers": {"verifications": "required"}}),
        top(rollouts={}),
        WEAKER,
    ),
    "a shorter wait": (top(approvals={}), top(approvals={"destroy_wait": "1h"}), WEAKER),
    "a longer proposal": (top(approvals={}), top(approvals={"expire": "100h"}), WEAKER),
    "one person for what strengthens": (
        top(changes={"strengthening": "approved"}),
        top(changes={}),
        WEAKER,
    ),
}
"""Changes from one policy to another, most of which weaken; the way back strengthens, unless `BACK`
says otherwise.
"""

BACK = {
    "an auditor less": BROADER,
    "a role": WEAKER,
    "nobody who approves": BROADER,
    "another transcript": BROADER,
    "a first step with more": WEAKER,
    "a grant's tenant": BROADER,
    "a grant's key": BROADER,
    "a grant's purpose": BROADER,
    "the trust domain": WEAKER,
    "another window": SAME,
}

ONE_VALUE = {
    (doc.PolicyDocument, "version"),
    (doc.PolicyDocument, "tls"),
    (doc.TlsPart, "min"),
}
"""Fields that have one value only."""


def differing(old: object, new: object) -> set[tuple[type, str]]:
    """Every field of which the two parts have other values, with the part that it is of."""
    found = set()
    for name in old.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        found.add((type(old), name))
        pairs = zip(before, after) if isinstance(before, tuple) else [(before, after)]  # noqa: B905 - one may have more
        for one, other in pairs:
            if isinstance(one, msgspec.Struct) and type(one) is type(other):
                found |= differing(one, other)
    return found


def test_every_row_of_the_table_has_a_kind_of_change():
    """So that each reads clearly, in its golden file."""
    shown = set()
    for before, after, _ in KINDS.values():
        shown |= differing(decode(edited(before)), decode(edited(after)))
    rows = {
        (part, field)
        for part, rules in TABLE.items()
        for field, rule in rules.items()
        if not isinstance(rule, Name) or part in {doc.CanaryPart, doc.WindowPart}
    }
    assert rows - shown == ONE_VALUE


@pytest.mark.parametrize("name", KINDS)
def test_a_change_and_its_way_back(name):
    before, after, strength = KINDS[name]
    old, new = decode(edited(before)), decode(edited(after))
    assert {change.strength for change in changes(old, new)} == {strength}
    back = changes(new, old)
    assert {change.strength for change in back} == {BACK.get(name, STRONGER)}
    assert weakens(back) == BACK.get(name, STRONGER).weakens


@pytest.mark.parametrize("name", KINDS)
def test_it_reads_as_its_golden_file_has_it(name):
    before, after = (edited(edit) for edit in KINDS[name][:2])
    text = "\n".join([*read(before, after), "", "and back:", *read(after, before), ""])
    assert (GOLDEN / f"{name.replace(' ', '-').replace(chr(39), '')}.txt").read_text() == text


def read(old: bytes, new: bytes) -> list[str]:
    """What a review shows: changes, how many, and whom they touch if both are whole policies."""
    found = changes(decode(old), decode(new))
    shown = [*lines(found), summary(found)]
    try:
        reached = touched(parse_policy(old), parse_policy(new))
    except PolicyError:
        return shown
    return [
        *shown,
        *(f"touches {one.grant}: {', '.join(one.workloads)}: {one.words}" for one in reached),
    ]


def test_no_length_of_a_name_hides_what_a_new_grant_may_do():
    """What came out: with a few long SPIFFE IDs the line ended before it said with which key."""
    long = [f"spiffe://capsign.test/{'x' * 230}/{number}" for number in range(9)]
    roles = [f"{'r' * 60}{number}" for number in range(16)]
    protocols = [{**JWT, "protocol": f"{'p' * 60}{number}", "roles": roles} for number in range(9)]

    def added(policy):
        grants = policy["grants"]
        grants.append({**grants[0], "name": "n" * 64, "workloads": long, "protocols": protocols})

    (found,) = changes(decode(edited(lambda p: None)), decode(edited(added)))
    shown = line_of(found)
    assert len(shown) == MAX_WORDS
    assert (
        "is new: 9 workloads may sign jwt with demo/orders (Ed25519, ES256, HS256, ML-DSA-65), at "
        "any rate, adapter-memory or stronger, handles live 15m, in "
    ) in shown


def test_every_golden_file_is_of_a_kind():
    names = {name.replace(" ", "-").replace("'", "") for name in KINDS}
    assert {path.stem for path in GOLDEN.iterdir()} == names


@pytest.mark.parametrize(
    ("each", "words"),
    [
        ([], "Nothing changes in what the policy says."),
        ([SAME], "1 change, which weakens or broadens nothing."),
        ([WEAKER], "1 change, which weakens or broadens: somebody else has to approve."),
        ([SAME, STRONGER], "2 changes, none of which weakens or broadens anything."),
        (
            [WEAKER, STRONGER],
            "2 changes, 1 of which weakens or broadens: somebody else has to approve.",
        ),
        (
            [WEAKER, BROADER, SAME],
            "3 changes, 2 of which weaken or broaden: somebody else has to approve.",
        ),
    ],
)
def test_a_sentence_counts_them(each, words):
    assert summary([Change("policy", strength, "words") for strength in each]) == words


def test_what_means_the_same_changes_nothing():
    """Order, a duration in other words, a default that is written out, a comment."""

    def otherwise(policy):
        policy["grants"].reverse()
        policy["grants"][0]["algorithms"].reverse()
        policy["grants"][0].update(ttl="900s", rate=None)
        policy["approvals"] = {"expire": "72h"}
        policy["keys"][0]["rotation"] = {"every": "24h", "window": ALL_DAY}

    old = decode(edited(key(rotation={"every": "1440m"})))
    new = decode(edited(otherwise) + b"\n# seen by Anna\n")
    assert changes(old, new) == []
    assert summary([]) == "Nothing changes in what the policy says."


def test_the_roles_of_two_parts_are_one():
    apart = [{"role": "auditor", "identities": [A]}, {"role": "auditor", "identities": [B]}]
    joined = [{"role": "auditor", "identities": [B, A]}]
    assert changes(decode(edited(top(roles=apart))), decode(edited(top(roles=joined)))) == []


def test_what_weakens_is_told_first():
    def mixed(policy):
        policy["grants"][0].update(ttl="1h", algorithms=["Ed25519", "ES256"])

    found = changes(decode(POLICY.encode()), decode(edited(mixed)))
    assert [change.strength for change in found] == [WEAKER, STRONGER, STRONGER]


def test_the_example_is_read_and_compared_with_itself():
    data = EXAMPLE.read_bytes()
    assert parse_policy(data).strengthen_at_once
    assert changes(decode(data), decode(data)) == []
