"""What is expected beside what is found: by kind, from values alone."""

from dataclasses import replace

import pytest
from capsign_adapter.decide import drift, drift_token
from capsign_adapter.decide.drift_token import Accounted
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.drift import (
    Difference,
    DriftRow,
    ReplicaReport,
    TokenContents,
    TokenObject,
)
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import AuthorityState
from capsign_evidence.drift_leaf import DriftKind
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2
from support.adapter_rig import POLICY

K = DriftKind
NOW = 1_800_000_000_000
HOUR, YEAR = 3_600_000, 365 * 24 * 3_600_000
POLICY_IN_FORCE = parse_policy(POLICY.encode())
DIGEST = POLICY_IN_FORCE.digest.hex()
ORDERS = KeyVersionRow(
    "demo",
    "orders",
    1,
    signing_pb2.KEY_STATE_ACTIVE,
    (algorithms_pb2.ALGORITHM_ED25519,),
    "capsign/demo/orders/1",
    bytes(8),
    NOW,
    activated_ms=NOW,
)
STRONG = {
    kind: tuple(sorted(expected.items())) for kind, expected in drift_token.ATTRIBUTES.items()
}
HELD = (
    TokenObject("secret-key", ORDERS.label, STRONG["secret-key"]),
    TokenObject("private-key", f"{ORDERS.label}/attest", STRONG["private-key"]),
    TokenObject("public-key", f"{ORDERS.label}/attest", STRONG["public-key"]),
)
LABELS = frozenset(one.label for one in HELD)
ACCOUNTED = Accounted(LABELS, LABELS, (ORDERS,))
OFFERED = drift_token.mechanisms_of((ORDERS,))


def names(found) -> list[tuple]:
    return [(one.kind, one.subject, one.aspect) for one in found]


def of_token(*objects, accounted=ACCOUNTED, mechanisms=OFFERED, derives=False):
    contents = TokenContents(objects or HELD, mechanisms, derives)
    return list(drift_token.of_token(contents, accounted))


def report(number: int = 1, **fields) -> ReplicaReport:
    made = ReplicaReport(bytes([number]) * 16, NOW + number, NOW, "1.0", DIGEST, (("a.b", "1"),))
    return replace(made, **fields)


def of_replicas(*reports):
    return list(drift.of_replicas(POLICY_IN_FORCE, reports))


def test_a_token_as_it_was_made_has_no_difference():
    assert of_token() == []


def test_an_object_that_nothing_accounts_for_is_named():
    stranger = TokenObject("secret-key", "capsign/demo/stranger/1")
    (found,) = of_token(*HELD, stranger)
    assert found == Difference(
        K.UNKNOWN_OBJECT, "capsign/demo/stranger/1", "object", "nothing", "secret-key"
    )


@pytest.mark.parametrize("kind", ["certificate", "data", "public-key"])
def test_an_object_that_is_no_key_is_an_unknown_one_too(kind):
    assert names(of_token(*HELD, TokenObject(kind, ""))) == [
        (K.UNKNOWN_OBJECT, "no-label", "object")
    ]


def test_a_second_key_of_a_known_label_is_unknown():
    assert names(of_token(*HELD, HELD[0])) == [(K.UNKNOWN_OBJECT, ORDERS.label, "count")]


def test_a_key_that_is_gone_is_missing():
    assert names(of_token(*HELD[1:])) == [(K.MISSING_OBJECT, ORDERS.label, "object")]


def test_the_public_half_alone_is_not_the_key():
    label = f"{ORDERS.label}/attest"
    assert names(of_token(HELD[0], HELD[2])) == [(K.MISSING_OBJECT, label, "object")]


@pytest.mark.parametrize(
    ("kind", "attribute"),
    [(kind, name) for kind, expected in drift_token.ATTRIBUTES.items() for name in expected],
)
def test_every_attribute_is_watched(kind, attribute):
    one = next(held for held in HELD if held.kind == kind)
    told = tuple((name, value != (name == attribute)) for name, value in one.attributes)
    others = tuple(held for held in HELD if held is not one)
    (found,) = of_token(*others, replace(one, attributes=told))
    aspect = f"public-{attribute}" if kind == "public-key" else attribute
    assert names([found]) == [(K.KEY_ATTRIBUTE, one.label, aspect)]
    assert {found.expected, found.found} == {"true", "false"}


def test_what_a_token_does_not_tell_is_no_difference():
    """softokn does not store CKA_LOCAL: nothing is known of it there."""
    assert of_token(*(replace(one, attributes=()) for one in HELD)) == []


def test_secrets_derive_where_the_token_does_that_inside_and_nowhere_else():
    deriving = replace(HELD[0], attributes=(("derive", True),))
    assert of_token(deriving, *HELD[1:], derives=True) == []
    assert names(of_token(deriving, *HELD[1:])) == [(K.KEY_ATTRIBUTE, ORDERS.label, "derive")]


def test_a_check_value_that_differs_is_another_key():
    assert list(drift_token.of_check("a", b"1", b"1")) == []
    (found,) = drift_token.of_check("a", b"1", b"2")
    assert (found.kind, found.aspect) == (K.KEY_ATTRIBUTE, "check-value")


@pytest.mark.parametrize("name", sorted(OFFERED))
def test_a_mechanism_that_is_needed_and_not_offered(name):
    (found,) = of_token(mechanisms=OFFERED - {name})
    assert names([found]) == [(K.MECHANISM, "token", name.lower())]


def test_mechanisms_of_destroyed_versions_are_not_needed():
    direct = replace(ORDERS, derived=False, algorithms=(algorithms_pb2.ALGORITHM_PS256,))
    assert "RSA_PKCS_PSS" in drift_token.mechanisms_of([direct])
    gone = replace(direct, state=signing_pb2.KEY_STATE_DESTROYED)
    assert "RSA_PKCS_PSS" not in drift_token.mechanisms_of([gone])


GOOD = {
    "oldest": "1.3",
    "newest": "1.3",
    "cipher": "TLS_AES_256_GCM_SHA384",
    "client-certificate": "demanded",
    "wanted": "demanded",
}


@pytest.mark.parametrize(
    ("aspect", "value"),
    [
        ("oldest", "1.2"),
        ("newest", "1.2"),
        ("cipher", "ECDHE-RSA-AES128-SHA"),
        ("client-certificate", "not demanded"),
    ],
)
def test_what_a_listener_negotiates(aspect, value):
    assert list(drift.of_tls(POLICY_IN_FORCE, {"listener/workloads": GOOD})) == []
    seen = {"listener/workloads": {**GOOD, aspect: value}}
    assert names(drift.of_tls(POLICY_IN_FORCE, seen)) == [(K.TLS, "listener/workloads", aspect)]


def test_a_setting_that_the_file_has_and_the_process_has_not():
    (found,) = drift.of_settings({"a": "1", "b": "2"}, {"a": "1", "b": "3"})
    assert found == Difference(K.CONFIGURATION, "file", "b", "3", "2")


def test_leaves_that_leave_the_store_without_a_witness():
    assert list(drift.of_retention(unwitnessed=False)) == []
    (found,) = drift.of_retention(unwitnessed=True)
    assert (found.kind, found.subject, found.found) == (
        K.CONFIGURATION,
        "log.retention",
        "none demanded",
    )


def test_the_chart_beside_policy_and_software():
    grant = POLICY_IN_FORCE.grants[0].name
    same = drift.Stated("capsign.test", "1.0", (grant,))
    other = drift.Stated("another.test", "2.0", ("orders-old", grant, "orders-old"))
    assert list(drift.of_chart(POLICY_IN_FORCE, drift.Stated(), "1.0")) == []
    assert list(drift.of_chart(POLICY_IN_FORCE, same, "1.0")) == []
    assert names(drift.of_chart(POLICY_IN_FORCE, other, "1.0")) == [
        (K.CHART, "chart", "trust_domain"),
        (K.CHART, "chart", "app_version"),
        (K.CHART, "chart/grant/orders-old", "grant"),
    ]


def test_replicas_that_agree_have_no_difference():
    assert of_replicas(report(1), report(2)) == []


def test_a_replica_of_another_version_is_named():
    (found,) = of_replicas(report(1), report(2, software="0.9"), report(3))
    assert found == Difference(K.SOFTWARE, "replica/020202020202", "version", "1.0", "0.9")


def test_of_two_replicas_the_one_that_started_last_counts():
    """It has what was rolled out; the other is the one that was left behind."""
    (found,) = of_replicas(report(1, software="1.0"), report(2, software="1.1"))
    assert (found.subject, found.expected) == ("replica/010101010101", "1.1")


def test_a_setting_that_another_replica_has_otherwise():
    (found,) = of_replicas(report(1), report(2), report(3, settings=(("a.b", "2"),)))
    assert found == Difference(K.CONFIGURATION, "replica/030303030303", "a.b", "1", "2")


def test_what_a_replica_finds_of_itself_bears_its_name():
    own = Difference(K.TLS, "listener/people", "oldest", "at least 1.3", "1.2")
    (found,) = of_replicas(report(1, own=(own,)))
    assert found == replace(own, subject="replica/010101010101/listener/people")


def test_one_difference_for_all_replicas_that_have_the_same_file():
    other = "ab" * 32
    found = of_replicas(*(report(n, policy_file=other) for n in (1, 2)), report(3))
    assert names(found) == [(K.POLICY_FILE, f"policy-file/{other}", "digest")]
    (found,) = of_replicas(report(1, policy_file=""))
    assert found.found == "cannot be read"


def test_a_version_that_signs_beyond_its_cryptoperiod():
    end = NOW + 2 * YEAR
    assert list(drift.of_cryptoperiods(POLICY_IN_FORCE, [ORDERS], end - 1)) == []
    (found,) = drift.of_cryptoperiods(POLICY_IN_FORCE, [ORDERS], end)
    assert names([found]) == [(K.LIFETIME, "key/demo/orders/1", "cryptoperiod")]
    rested = replace(ORDERS, state=signing_pb2.KEY_STATE_DEACTIVATED)
    assert list(drift.of_cryptoperiods(POLICY_IN_FORCE, [rested], end)) == []


def test_an_authority_that_lives_longer_than_the_configuration_says():
    row = AuthorityRow(3, AuthorityState.ACTIVE, b"", "l", bytes(8), NOW, NOW + 2 * HOUR)
    assert list(drift.of_authorities([row], 2 * HOUR)) == []
    assert names(drift.of_authorities([row], HOUR)) == [(K.LIFETIME, "authority/3", "life")]
    retired = replace(row, state=AuthorityState.RETIRED)
    assert list(drift.of_authorities([retired], HOUR)) == []


def test_a_certificate_that_lives_longer_than_the_configuration_says():
    assert list(drift.of_certificates({"listener/people": HOUR}, HOUR)) == []
    found = drift.of_certificates({"listener/people": 2 * HOUR}, HOUR)
    assert names(found) == [(K.LIFETIME, "listener/people", "certificate")]


A = Difference(K.TLS, "a", "oldest", "at least 1.3", "1.2")
B = Difference(K.UNKNOWN_OBJECT, "b", "object", "nothing", "data")


def test_what_is_new_and_what_is_gone():
    rows = [DriftRow(A, 1, 1)]
    assert drift.moved(rows, [A], DriftKind) == ([], [])
    assert drift.moved(rows, [A, B], DriftKind) == ([B], [])
    assert drift.moved(rows, [B], DriftKind) == ([B], rows)


def test_no_answer_is_not_absence():
    """The token is away: what was wrong in it is still wrong for all that is known."""
    rows = [DriftRow(B, 1, 1)]
    assert drift.moved(rows, [], {K.TLS}) == ([], [])


def test_a_label_of_any_length_and_of_any_characters_is_told_in_bounds():
    (found,) = drift.bounded([replace(B, subject="\n\u2028\x1b[31m" + "x" * 4000)])
    assert len(found.subject) <= drift.MAX_TEXT
    assert found.subject.isprintable()
    assert drift.bounded([found]) == (found,)
    assert found.subject.isascii()


def test_a_flood_of_objects_is_told_in_bounds_and_does_not_change_each_time():
    some = [replace(B, subject=f"{n:05}") for n in range(5_000)]
    found = drift.bounded(some)
    assert len(found) == drift.MAX_DIFFERENCES + 1
    assert found == drift.bounded([*some, replace(B, subject="99999")])
