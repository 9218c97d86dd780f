"""Who may have a certificate, decided from facts alone."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from capsign_adapter.decide import enrolment
from capsign_adapter.decide.enrolment import Bearer, PodFacts, TokenFacts
from capsign_adapter.decide.policy_load import parse_policy
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from hypothesis import given
from hypothesis import strategies as st
from support.adapter_rig import APP, OPERATOR, POLICY, STRANGER

UID = "4f9c1b2a-d7e8-4a11-b6f3-0c5d9e8f7a60"
OTHER_UID = "4f9c1b2a-d7e8-4a11-b6f3-0c5d9e8f7a61"
NOW = 1_800_000_000_000
TOKEN = TokenFacts(True, "system:serviceaccount:demo:app", ("capsign",), "web-0", UID)
BEARER = Bearer("demo", "app", "web-0", UID)
POD = PodFacts(UID, "app", "Running", (ip_address("10.1.0.5"), ip_address("fd00::5")))
RULES = parse_policy(POLICY.encode())

REFUSED = reasons.REASON_SERVICE_TOKEN_REFUSED
MISPLACED = reasons.REASON_SERVICE_TOKEN_MISPLACED


def reason_of(step, *arguments) -> int | None:
    """Why the step refuses; None if it does not."""
    try:
        step(*arguments)
    except FailureError as error:
        return error.reason
    return None


def test_a_token_proves_its_pod_and_that_is_an_identity():
    bearer = enrolment.bearer_of(TOKEN, "capsign")
    assert bearer == BEARER
    assert bearer.uid == bytes.fromhex(UID.replace("-", ""))
    assert enrolment.spiffe_id_of("capsign.test", bearer) == APP


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"authenticated": False}, REFUSED),
        ({"audiences": ()}, REFUSED),
        ({"audiences": ("other",)}, REFUSED),
        ({"audiences": ("capsign2", "")}, REFUSED),
        ({"username": ""}, REFUSED),
        ({"username": "kubernetes-admin"}, REFUSED),
        ({"username": "system:node:n1"}, REFUSED),
        ({"username": "system:serviceaccount:demo"}, REFUSED),
        ({"username": "system:serviceaccount:demo:app:x"}, REFUSED),
        ({"username": "system:serviceaccount:demo:app\n"}, REFUSED),
        ({"username": "system:serviceaccount:de/mo:app"}, REFUSED),
        ({"username": "system:serviceaccount:demo:.."}, REFUSED),
        ({"username": "system:serviceaccount::app"}, REFUSED),
        ({"username": "xsystem:serviceaccount:demo:app"}, REFUSED),
        ({"pod_name": ""}, MISPLACED),
        ({"pod_name": "../x"}, MISPLACED),
        ({"pod_uid": ""}, MISPLACED),
        ({"pod_uid": "web-0"}, MISPLACED),
        ({"pod_uid": UID.upper()}, MISPLACED),
    ],
)
def test_what_a_token_does_not_prove(change, reason):
    facts = {name: getattr(TOKEN, name) for name in TokenFacts.__slots__} | change
    assert reason_of(enrolment.bearer_of, TokenFacts(**facts), "capsign") == reason


@given(
    st.booleans(),
    st.text(max_size=40),
    st.lists(st.text(max_size=8), max_size=3),
    st.text(max_size=20),
    st.text(max_size=40),
)
def test_a_bearer_is_only_what_every_fact_says(
    authenticated, username, audiences, pod_name, pod_uid
):
    """Whatever the cluster's answer holds: either all of it is as it must be, or there is no
    bearer, and nothing else happens.
    """
    facts = TokenFacts(authenticated, username, tuple(audiences), pod_name, pod_uid)
    reason = reason_of(enrolment.bearer_of, facts, "capsign")
    if reason is not None:
        assert reason in {REFUSED, MISPLACED}
        return
    bearer = enrolment.bearer_of(facts, "capsign")
    assert authenticated
    assert "capsign" in audiences
    assert username == f"system:serviceaccount:{bearer.namespace}:{bearer.service_account}"
    assert (bearer.pod_name, bearer.pod_uid) == (pod_name, pod_uid)


_labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(_labels, _labels, _labels, _labels)
def test_two_accounts_never_share_an_identity(namespace, name, other_namespace, other_name):
    one, other = Bearer(namespace, name, "p", UID), Bearer(other_namespace, other_name, "p", UID)
    same = enrolment.spiffe_id_of("capsign.test", one) == enrolment.spiffe_id_of(
        "capsign.test", other
    )
    assert same == ((namespace, name) == (other_namespace, other_name))


@pytest.mark.parametrize(
    ("spiffe_id", "reason"),
    [(APP, None), (OPERATOR, None), (STRANGER, reasons.REASON_IDENTITY_UNKNOWN)],
)
def test_policy_must_name_the_identity_in_a_grant_or_a_role(spiffe_id, reason):
    assert reason_of(enrolment.demand_named, RULES, spiffe_id) == reason


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (POD, None),
        (
            PodFacts(UID, "app", "Pending"),
            None,
        ),  # an agent is an init container: its pod is pending while it starts
        (PodFacts(UID, "app", "Running", deleted_ms=NOW), None),  # within its grace period
        (PodFacts(UID, "app", "Running", deleted_ms=NOW - 1), REFUSED),
        (PodFacts(UID, "app", "Succeeded"), REFUSED),
        (PodFacts(UID, "app", "Failed"), REFUSED),
        (PodFacts(UID, "app", "Unknown"), REFUSED),
        (PodFacts(UID, "app", ""), REFUSED),
        (
            PodFacts(OTHER_UID, "app", "Running"),
            REFUSED,
        ),  # a StatefulSet's pod by the same name, made anew
        (PodFacts(UID, "other", "Running"), MISPLACED),
        (None, REFUSED),
    ],
)
def test_the_pod_must_be_the_very_one_and_run(pod, reason):
    assert reason_of(enrolment.demand_live, BEARER, pod, NOW) == reason


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.1.0.5", None),
        ("fd00::5", None),
        ("::ffff:10.1.0.5", None),
        ("fd00::5%eth0", None),
        ("10.1.0.6", MISPLACED),
        ("::1", MISPLACED),
        (None, MISPLACED),
    ],
)
def test_the_connection_must_come_from_the_pod(address, reason):
    assert reason_of(enrolment.demand_sender, POD, address and ip_address(address)) == reason


def test_a_pod_whose_address_is_not_known_yet_is_asked_to_come_again():
    with pytest.raises(FailureError) as caught:
        enrolment.demand_sender(PodFacts(UID, "app", "Pending"), ip_address("10.1.0.5"))
    assert caught.value.reason == reasons.REASON_CLUSTER_UNAVAILABLE
    assert 0 < caught.value.retry_after_ms <= 1000


@given(st.lists(st.ip_addresses(), max_size=3), st.ip_addresses())
def test_no_other_address_will_do(own, address):
    reason = reason_of(
        enrolment.demand_sender, PodFacts(UID, "app", "Running", tuple(own)), address
    )
    if not own:
        assert reason == reasons.REASON_CLUSTER_UNAVAILABLE
    else:
        assert (reason is None) == (
            enrolment.plain(address) in [enrolment.plain(each) for each in own]
        )


def test_on_renewal_the_token_and_the_certificate_name_the_same_workload():
    assert reason_of(enrolment.demand_holder, APP, APP) is None
    assert reason_of(enrolment.demand_holder, STRANGER, APP) == MISPLACED


@pytest.mark.parametrize(
    ("names", "good"),
    [
        ((), True),
        ((APP,), True),
        ((STRANGER,), False),
        ((APP, STRANGER), False),
        ((APP + "/",), False),
        ((APP.upper(),), False),
    ],
)
def test_a_request_names_its_own_identity_or_none(names, good):
    reason = reason_of(enrolment.demand_own_name, names, APP)
    assert reason == (None if good else reasons.REASON_CERTIFICATE_REQUEST_REFUSED)
