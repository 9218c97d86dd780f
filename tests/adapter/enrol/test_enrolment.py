"""How a pod gets a certificate, and how everybody else does not: each attack is refused and stands
in the log.
"""

from __future__ import annotations

import hashlib
import threading

import pytest
from capsign_adapter.decide.enrolment import REVOKED_WAIT_MS
from capsign_adapter.decide.peer import Peer
from capsign_adapter.enrol import enrolment as flow
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_evidence.leaf_reader import IdentityIssued, IdentityRefused
from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.adapter_rig import APP, OTHER, POLICY, STRANGER, peer
from support.certificate_requests import refused as bad_requests
from support.certificate_requests import request
from support.fake_cluster import CACHE_SECONDS

REFUSED = reasons.REASON_SERVICE_TOKEN_REFUSED
MISPLACED = reasons.REASON_SERVICE_TOKEN_MISPLACED


def uid_bytes(pod) -> bytes:
    return bytes.fromhex(pod.uid.replace("-", ""))


def refusal(door, call, *arguments, **named) -> FailureError:
    """The failure; nothing was issued, and no token stands in it."""
    issued = len(door.authority.issued)
    with pytest.raises(FailureError) as caught:
        call(*arguments, **named)
    assert len(door.authority.issued) == issued
    assert not any(token in str(caught.value) for token in door.cluster._tokens)
    return caught.value


def recorded(door) -> IdentityRefused:
    """The one leaf that there is."""
    (entry,) = door.entries()
    assert isinstance(entry, IdentityRefused)
    return entry


# What goes well.


def test_a_pod_gets_a_certificate_in_the_name_of_its_account_and_the_log_says_so(door):
    pod, key = door.pod(), ec.generate_private_key(ec.SECP256R1())
    identity = door.enrol(door.cluster.token(pod), request(key=key))
    assert identity.spiffe_id == APP
    certificate = x509.load_der_x509_certificate(identity.issued.certificates[0])
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert certificate.public_key() == key.public_key()
    assert identity.bundle.authorities == (door.authority.certificate,)
    (entry,) = door.entries()
    assert isinstance(entry, IdentityIssued)
    assert (entry.workload, entry.pod_uid, entry.key_hash) == (
        APP,
        uid_bytes(pod),
        hashlib.sha256(spki).digest(),
    )
    assert (entry.authority, entry.not_after_ms) == (
        identity.issued.authority,
        identity.issued.not_after_ms,
    )
    assert entry.policy_digest == door.adapter.policy.digest


def test_a_request_may_name_the_identity_that_it_will_get(door):
    assert door.enrol(door.cluster.token(door.pod()), request(APP)).spiffe_id == APP


def test_a_pod_that_is_still_starting_gets_one(door):
    """The agent is the first init container: until it is up, its pod is pending."""
    pod = door.pod()
    pod.phase = "Pending"
    assert door.enrol(door.cluster.token(pod)).spiffe_id == APP


def test_a_pod_renews_with_its_token_of_now(door):
    pod = door.pod()
    assert door.renew(door.cluster.token(pod)).spiffe_id == APP
    assert isinstance(door.entries()[0], IdentityIssued)


def test_a_pod_within_its_grace_period_may_still_renew(door):
    pod = door.pod()
    pod.deleted_at = door.cluster.now() + 30
    assert door.renew(door.cluster.token(pod)).spiffe_id == APP


def test_where_addresses_change_on_the_way_the_check_can_be_left_out(door):
    door.wire(pod_address_check=False)
    assert door.enrol(door.cluster.token(door.pod()), address="192.0.2.7").spiffe_id == APP
    assert door.enrol(door.cluster.token(door.pod()), address=None).spiffe_id == APP


def test_a_pod_on_its_nodes_network_may_be_taken_from_any_address_and_no_other_pod(door):
    """On the way to an adapter on the same node its address became that of a bridge, and with
    `allowHostNetwork` alone the pod waited for ever.
    """
    pod = door.pod()
    pod.host_network = True
    with pytest.raises(FailureError, match="does not come from the pod"):
        door.enrol(door.cluster.token(pod), address="10.244.0.1")
    door.wire(host_network_pods=True)
    assert door.enrol(door.cluster.token(pod), address="10.244.0.1").spiffe_id == APP
    pod.host_network = False
    with pytest.raises(FailureError, match="does not come from the pod"):
        door.enrol(door.cluster.token(pod), address="10.244.0.1")


def test_the_certificate_leaves_only_when_its_leaf_is_durable(door):
    """The store fails at the last step: a certificate was made, and nobody gets it."""

    def broken(*_):
        raise StoreUnavailableError("gone")

    door.adapter.store.instead(append=broken)
    with pytest.raises(StoreUnavailableError):
        door.enrol(door.cluster.token(door.pod()))
    assert len(door.authority.issued) == 1
    assert door.entries() == []


# Attacks on the token.


def _another_audience(door, pod):
    return door.cluster.token(pod, audience="https://kubernetes.default.svc.cluster.local")


def _expired(door, pod):
    return door.cluster.token(pod, seconds=-1)


def _of_a_deleted_pod(door, pod):
    token = door.cluster.token(pod)
    door.cluster.delete(pod)
    return token


def _of_a_pod_that_was_made_anew(door, pod):
    token = door.cluster.token(pod)
    door.cluster.delete(pod)
    door.pod()
    return token


def _made_up(door, pod):
    return "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6ZGVtbzphcHAifQ."


@pytest.mark.parametrize(
    "stolen",
    [_another_audience, _expired, _of_a_deleted_pod, _of_a_pod_that_was_made_anew, _made_up],
    ids=lambda each: each.__name__,
)
def test_a_token_that_the_cluster_does_not_vouch_for(door, stolen):
    token = stolen(door, door.pod())
    assert refusal(door, door.enrol, token).reason == REFUSED
    entry = recorded(door)
    assert (entry.reason, entry.workload, entry.pod_uid) == (REFUSED, "", b"")
    assert len(entry.key_hash) == 32


@pytest.mark.parametrize("anew", [False, True])
def test_the_clusters_cache_of_reviews_gives_a_thief_no_time(door, anew):
    """TokenReview went on saying yes for ten seconds after the pod was gone; the pod object did
    not.
    """
    pod = door.pod()
    token = door.cluster.token(pod)
    door.enrol(token)
    door.cluster.delete(pod)
    if anew:
        door.pod()
    assert door.cluster.review(token, ["capsign"])["authenticated"]
    assert refusal(door, door.enrol, token).reason == REFUSED
    assert door.entries()[1].pod_uid == uid_bytes(pod)
    door.cluster.pass_time(CACHE_SECONDS + 1)
    assert not door.cluster.review(token, ["capsign"]).get("authenticated")
    assert refusal(door, door.enrol, token).reason == REFUSED


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_gets_nothing(door, phase):
    pod = door.pod()
    token = door.cluster.token(pod)
    pod.phase = phase
    assert refusal(door, door.enrol, token).reason == REFUSED
    assert recorded(door).workload == APP


def test_a_pod_past_its_grace_period_gets_nothing(door):
    pod = door.pod()
    pod.deleted_at = door.cluster.now() - 1
    assert refusal(door, door.enrol, door.cluster.token(pod)).reason == REFUSED


def test_a_token_that_is_bound_to_no_pod(door):
    assert refusal(door, door.enrol, door.cluster.token(None)).reason == MISPLACED
    assert recorded(door).reason == MISPLACED


def test_a_cluster_that_knows_nothing_of_audiences_proves_nothing(door):
    door.cluster.misbehaviour = "no audiences"
    assert refusal(door, door.enrol, door.cluster.token(door.pod())).reason == REFUSED


def test_a_token_replayed_from_another_pod(door):
    """Both pods are of workloads that policy names. The thief has the victim's token and its own
    address.
    """
    victim = door.pod("app", "web-0", "10.1.0.5")
    thief = door.pod("other", "web-1", "10.1.0.6")
    assert (
        refusal(door, door.enrol, door.cluster.token(victim), address=thief.addresses[0]).reason
        == MISPLACED
    )
    entry = recorded(door)
    assert (entry.reason, entry.workload, entry.pod_uid) == (MISPLACED, APP, uid_bytes(victim))


def test_a_token_whose_sender_has_no_address_that_we_know(door):
    assert (
        refusal(door, door.enrol, door.cluster.token(door.pod()), address=None).reason == MISPLACED
    )


def test_a_pod_that_policy_does_not_name(door):
    """The token is good and comes from its own pod: that alone is no right. The name that was tried
    is not written down.
    """
    pod = door.pod("stranger")
    assert (
        refusal(door, door.enrol, door.cluster.token(pod)).reason == reasons.REASON_IDENTITY_UNKNOWN
    )
    entry = recorded(door)
    assert (entry.reason, entry.workload, entry.pod_uid) == (
        reasons.REASON_IDENTITY_UNKNOWN,
        "",
        uid_bytes(pod),
    )


def test_a_pod_whose_account_is_not_the_tokens(door):
    pod = door.pod("other")
    token = door.cluster.token(pod, account=("demo", "app"))
    assert refusal(door, door.enrol, token).reason == MISPLACED


# Attacks on the request.


@pytest.mark.parametrize(
    "name",
    [
        OTHER,
        STRANGER,
        "spiffe://capsign.test/operator/dev",
        "spiffe://other.test/ns/demo/sa/app",
        APP + "x",
    ],
)
def test_a_request_for_another_identity(door, name):
    pod = door.pod()
    failure = refusal(door, door.enrol, door.cluster.token(pod), request(name))
    assert failure.reason == reasons.REASON_CERTIFICATE_REQUEST_REFUSED
    entry = recorded(door)
    assert (entry.reason, entry.workload, entry.pod_uid) == (failure.reason, APP, uid_bytes(pod))


@pytest.mark.parametrize(
    "what", ["noise", "CA:TRUE", "DNS name", "subject", "RSA key", "altered signature"]
)
def test_a_request_that_cannot_be_taken_costs_the_cluster_nothing(door, what):
    failure = refusal(door, door.enrol, door.cluster.token(door.pod()), bad_requests()[what])
    assert failure.reason == reasons.REASON_CERTIFICATE_REQUEST_REFUSED
    assert door.cluster.requests == []
    entry = recorded(door)
    assert (entry.workload, entry.pod_uid, entry.key_hash) == ("", b"", b"")


# Renewal.


def test_a_pod_that_is_gone_gets_no_further_certificate(door):
    """It still has a good certificate, and for some seconds a token that the cluster's cache
    believes.
    """
    pod = door.pod()
    token = door.cluster.token(pod)
    door.renew(token)
    door.cluster.delete(pod)
    assert refusal(door, door.renew, token).reason == REFUSED
    assert door.entries()[1].workload == APP


def test_a_certificate_cannot_be_renewed_into_another_identity(door):
    """A thief with its own good certificate and the victim's token; and the other way round."""
    victim = door.pod("app", "web-0")
    assert refusal(door, door.renew, door.cluster.token(victim), peer(OTHER)).reason == MISPLACED
    entry = recorded(door)
    assert (entry.workload, entry.pod_uid) == (OTHER, uid_bytes(victim))
    assert (
        refusal(door, door.renew, door.cluster.token(victim), peer(OTHER), request(OTHER)).reason
        == MISPLACED
    )
    assert (
        refusal(door, door.renew, door.cluster.token(victim), peer(), request(OTHER)).reason
        != MISPLACED
    )


def test_a_renewal_comes_from_the_pod_too(door):
    pod = door.pod("app", "web-0", "10.1.0.5")
    assert (
        refusal(door, door.renew, door.cluster.token(pod), address="10.1.0.6").reason == MISPLACED
    )


def test_a_workload_that_policy_no_longer_names_is_not_renewed_nor_written_down(door):
    door.adapter.apply(POLICY[: POLICY.index("grants:")])
    door.before = door.adapter.store.control().tree_size
    assert (
        refusal(door, door.renew, door.cluster.token(door.pod())).reason
        == reasons.REASON_IDENTITY_UNKNOWN
    )
    assert recorded(door).workload == ""


def test_a_key_serves_one_certificate(door):
    """Whoever copied the key of one would otherwise have that of all that follow."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    holder = Peer(APP, hashlib.sha256(spki).digest(), now_ms() + 1000)
    failure = refusal(door, door.renew, door.cluster.token(door.pod()), holder, request(key=key))
    assert failure.reason == reasons.REASON_CERTIFICATE_REQUEST_REFUSED
    assert door.cluster.requests == []
    assert recorded(door).workload == APP


# Revocation.


def revoke(door, kind, target):
    door.adapter.store.revoke(kind, target, lambda epoch: b"leaf", now_ms())
    door.before = door.adapter.store.control().tree_size


@pytest.mark.parametrize(
    ("kind", "target"),
    [(admin_pb2.REVOCATION_KIND_WORKLOAD, APP), (admin_pb2.REVOCATION_KIND_EVERYTHING, "*")],
)
@pytest.mark.parametrize("call", ["enrol", "renew"])
def test_a_workload_that_is_revoked_gets_no_certificate(door, kind, target, call):
    """Its handles were gone at once, and yet each of its pods could keep an identity for as long as
    it ran.
    """
    pod = door.pod()
    token = door.cluster.token(pod)
    getattr(door, call)(token)
    revoke(door, kind, target)
    failure = refusal(door, getattr(door, call), token)
    assert failure.reason == reasons.REASON_HANDLE_REVOKED
    assert failure.retry_after_ms == REVOKED_WAIT_MS
    entry = recorded(door)
    assert (entry.reason, entry.workload, entry.pod_uid) == (failure.reason, APP, uid_bytes(pod))


def test_the_revocation_of_another_or_of_something_smaller_leaves_identities_alone(door):
    revoke(door, admin_pb2.REVOCATION_KIND_WORKLOAD, OTHER)
    revoke(door, admin_pb2.REVOCATION_KIND_TENANT, "demo")
    assert door.enrol(door.cluster.token(door.pod())).spiffe_id == APP


def test_whoever_sees_to_an_incident_keeps_an_identity_when_everything_is_revoked(door):
    door.adapter.apply(
        POLICY.replace("roles:\n", f'roles:\n  - {{role: responder, identities: ["{APP}"]}}\n')
    )
    revoke(door, admin_pb2.REVOCATION_KIND_EVERYTHING, "*")
    assert door.enrol(door.cluster.token(door.pod())).spiffe_id == APP


# What decides nothing.


@pytest.mark.parametrize(
    "misbehaviour", ["500", "401", "403", "garbage", "wrong shape", "hang up", "huge", "404"]
)
def test_a_cluster_that_cannot_be_asked_decides_nothing_and_is_not_evidence(door, misbehaviour):
    pod = door.pod()
    token = door.cluster.token(pod)
    door.cluster.misbehaviour = misbehaviour
    failure = refusal(door, door.enrol, token)
    assert failure.reason == reasons.REASON_CLUSTER_UNAVAILABLE
    assert door.entries() == []
    door.cluster.misbehaviour = None
    assert door.enrol(token).spiffe_id == APP


def test_a_pod_whose_address_the_cluster_does_not_know_yet_comes_again(door):
    pod = door.cluster.run("demo", "web-0", "app")
    token = door.cluster.token(pod)
    failure = refusal(door, door.enrol, token)
    assert failure.reason == reasons.REASON_CLUSTER_UNAVAILABLE
    assert failure.retry_after_ms <= 1000
    assert door.entries() == []
    pod.addresses = ("127.0.0.1",)
    assert door.enrol(token).spiffe_id == APP


def test_an_authority_that_fails_is_no_refusal(door):
    door.authority.error = FailureError(reasons.REASON_TOKEN_UNAVAILABLE)
    assert (
        refusal(door, door.enrol, door.cluster.token(door.pod())).reason
        == reasons.REASON_TOKEN_UNAVAILABLE
    )
    assert door.entries() == []


# Floods.


def test_refusals_are_recorded_at_a_bounded_rate_and_whoever_is_good_gets_in(door):
    """The clock stands still: five seconds' worth of refusals are recorded, then callers are told
    to wait.
    """
    door.wire(refusals_per_second=2)
    seen = [refusal(door, door.enrol, "eyJ.eyJ.sig").reason for _ in range(20)]
    assert seen == [REFUSED] * 10 + [reasons.REASON_RATE_LIMITED] * 10
    assert len(door.entries()) == 10
    assert door.enrol(door.cluster.token(door.pod())).spiffe_id == APP


def test_refusals_are_recorded_again_though_the_clock_on_the_wall_stepped_back(door):
    """A flood, then an hour back: for that hour every refusal was answered with a wait, and none
    was recorded.
    """
    door.wire(refusals_per_second=1)
    assert [refusal(door, door.enrol, "eyJ.eyJ.sig").reason for _ in range(6)][
        -1
    ] == reasons.REASON_RATE_LIMITED
    door.ahead_ms = -3_600_000
    door.rates_ms += 1000
    assert refusal(door, door.enrol, "eyJ.eyJ.sig").reason == REFUSED


def test_a_flood_of_enrolments_does_not_use_up_the_records_of_renewals(door):
    door.wire(refusals_per_second=1)
    for _ in range(10):
        refusal(door, door.enrol, "eyJ.eyJ.sig")
    pod = door.pod("app", "web-0", "10.1.0.5")
    assert refusal(door, door.renew, door.cluster.token(pod)).reason == MISPLACED
    assert door.entries()[-1].reason == MISPLACED


def test_the_cluster_is_asked_by_few_at_once_and_renewals_do_not_wait(door):
    """Reviews hang. Eight enrolments ask, the ninth is sent away; so is the fifth renewal, at once:
    each has its own turns.
    """
    door.wire(pod_address_check=False, wait_s=0.05)
    pod = door.pod()
    token = door.cluster.token(pod)
    door.cluster.may_continue.clear()
    results: list[object] = []

    def run(call, **named):
        try:
            results.append(call(token, **named).spiffe_id)
        except FailureError as error:
            results.append(error.reason)

    crowd = [
        threading.Thread(target=run, args=(door.enrol,), kwargs={"address": f"10.0.0.{one}"})
        for one in range(flow.ENROLMENTS_AT_ONCE)
    ]
    crowd += [
        threading.Thread(target=run, args=(door.renew,)) for _ in range(flow.RENEWALS_AT_ONCE)
    ]
    for thread in crowd:
        thread.start()
    door.cluster.wait_for_reviews(len(crowd))
    assert refusal(door, door.enrol, token).reason == reasons.REASON_OVERLOADED
    assert refusal(door, door.renew, token).reason == reasons.REASON_OVERLOADED
    door.cluster.may_continue.set()
    for thread in crowd:
        thread.join()
    assert results == [APP] * len(crowd)
    assert door.cluster.most_at_once == len(crowd)


def test_one_address_with_bad_tokens_leaves_others_the_way_to_the_cluster(door):
    """Reviews are slow. Eight calls of one address held every turn, and pods elsewhere were sent
    away for as long as it went on.
    """
    door.wire(pod_address_check=False)
    door.cluster.may_continue.clear()
    refused = []

    def bad():
        try:
            door.enrol("eyJ.eyJ.sig", address="10.0.0.1")
        except FailureError as error:
            refused.append(error.reason)

    crowd = [threading.Thread(target=bad) for _ in range(flow.ENROLMENTS_AT_ONCE)]
    for thread in crowd:
        thread.start()
    for thread in crowd[flow.ENROLMENTS_OF_ONE_ADDRESS :]:
        thread.join(timeout=0)
    door.cluster.wait_for_reviews(flow.ENROLMENTS_OF_ONE_ADDRESS)
    token = door.cluster.token(door.pod())
    good = threading.Thread(target=lambda: door.enrol(token, address="10.0.0.2"))
    good.start()
    door.cluster.wait_for_reviews(flow.ENROLMENTS_OF_ONE_ADDRESS + 1)
    door.cluster.may_continue.set()
    for thread in (*crowd, good):
        thread.join()
    assert door.authority.issued
    assert len(refused) == len(crowd)


# What is said.


def test_no_token_is_logged_whatever_happens(door, capsys):
    pod = door.pod("app", "web-0", "10.1.0.5")
    tokens = [
        door.cluster.token(pod),
        door.cluster.token(pod, seconds=-1),
        door.cluster.token(None),
    ]
    for token in tokens:
        refusal(door, door.enrol, token)
    door.enrol(tokens[0], address="10.1.0.5")
    door.cluster.misbehaviour = "garbage"
    refusal(door, door.enrol, tokens[0])
    said = capsys.readouterr().err
    assert "identity.refused" in said
    assert "identity.issued" in said
    parts = [part for token in tokens for part in token.split(".")]
    assert not any(part in said for part in [*parts, door.cluster.adapter_token])
