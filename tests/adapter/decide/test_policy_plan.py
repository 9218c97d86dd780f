"""What a change of the policy does to the handles of those who have them already."""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_adapter.decide.policy import Grant, Key, KeyKind, Lifetime, Policy
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.policy_plan import Touched, touched, unserved
from support.adapter_rig import APP, OTHER, POLICY

OLD = parse_policy(POLICY.encode())
GRANT = next(each for each in OLD.grants if each.name == "orders-jwt")
KEY = next(each for each in OLD.keys if each.name == "orders")
ONE = frozenset(sorted(GRANT.algorithms)[:1])

REFUSED = "their handles are refused; they get others"
FEWER = "their handles sign with fewer algorithms at once"
KIND = "their handles sign with the key's new kind from its next version on"
SOONER = "their handles end sooner; older ones are refused"
TERMS = "their handles hold for what old and new terms allow, and get the rest when renewed"


def changed(grant: Grant = GRANT, key: Key = KEY, **fields: object) -> Policy:
    """The policy with this grant and key in place of its own."""
    grants = tuple(grant if each.name == grant.name else each for each in OLD.grants)
    keys = tuple(key if each.name == key.name else each for each in OLD.keys)
    return replace(OLD, grants=grants, keys=keys, **fields)


EFFECTS = {
    "another tenant's key": (changed(replace(GRANT, tenant="shop")), REFUSED),
    "another key": (changed(replace(GRANT, key="payments")), REFUSED),
    "another purpose": (changed(replace(GRANT, purpose="tls")), REFUSED),
    "an algorithm less": (changed(replace(GRANT, algorithms=ONE)), FEWER),
    "another kind": (changed(key=replace(KEY, kind=KeyKind.DIRECT)), KIND),
    "a shorter life": (changed(replace(GRANT, ttl_ms=GRANT.ttl_ms - 1)), SOONER),
    "a longer life": (changed(replace(GRANT, ttl_ms=GRANT.ttl_ms + 1)), TERMS),
    "a rate": (changed(replace(GRANT, rate_per_second=1, burst=1)), TERMS),
    "stronger custody": (changed(replace(GRANT, min_custody=3)), TERMS),
    "nothing of the grant": (changed(strengthen_at_once=False), ""),
    "another life of its key": (changed(key=replace(KEY, lifetime=Lifetime(1, 1))), ""),
    "an algorithm of its key that it never had": (
        changed(key=replace(KEY, algorithms=KEY.algorithms | {99})),
        "",
    ),
    "a floor below all of its algorithms": (changed(floor_bits=OLD.floor_bits + 1), ""),
    "the strictest of several": (
        changed(replace(GRANT, key="payments", algorithms=ONE, ttl_ms=1)),
        REFUSED,
    ),
    "fewer algorithms and a shorter life": (
        changed(replace(GRANT, algorithms=ONE, ttl_ms=1)),
        FEWER,
    ),
}


@pytest.mark.parametrize("name", EFFECTS)
def test_what_happens_to_handles_that_stay(name):
    new, words = EFFECTS[name]
    found = [each for each in touched(OLD, new) if each.grant == "orders-jwt"]
    assert found == ([Touched("orders-jwt", (APP,), words)] if words else [])


def test_a_grant_that_is_gone_tells_everybody_who_had_it():
    """Sorted, so that two reviews read the same."""
    three = replace(GRANT, workloads=frozenset({OTHER, APP, f"{APP}-too"}))
    fewer = replace(OLD, grants=tuple(one for one in OLD.grants if one.name != "orders-jwt"))
    who = tuple(sorted(three.workloads))
    assert touched(changed(three), fewer) == [
        Touched("orders-jwt", who, "their handles are refused")
    ]
    assert touched(fewer, changed(three)) == [
        Touched("orders-jwt", who, "they get a handle when they next renew theirs")
    ]


def test_who_leaves_comes_and_stays_is_told_apart():
    new = changed(replace(GRANT, workloads=frozenset({OTHER, APP}), ttl_ms=GRANT.ttl_ms - 1))
    assert touched(OLD, new) == [
        Touched("orders-jwt", (OTHER,), "they get a handle when they next renew theirs"),
        Touched("orders-jwt", (APP,), SOONER),
    ]
    assert touched(new, OLD) == [
        Touched("orders-jwt", (OTHER,), "their handles are refused"),
        Touched("orders-jwt", (APP,), TERMS),
    ]


def test_keys_without_a_version_are_named():
    assert unserved(OLD, {("demo", "orders")}) == ["demo/release"]
