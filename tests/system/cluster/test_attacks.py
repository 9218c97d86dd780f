"""Attacks on enrolment from inside the cluster: each is refused, and recorded with what was known
of the attacker.
"""

from __future__ import annotations

import json
import uuid

import pytest
from capsign_evidence.leaf_reader import IdentityIssued, IdentityRefused
from support.certificate_requests import request
from system.cluster.fleet import INJECT, SHOP, SYSTEM, reason_name
from system.cluster.kit import manifests
from system.cluster.kit.tokens import Forge

ORDERS = f"spiffe://cluster.local/ns/{SHOP}/sa/orders"
LEDGER = f"spiffe://cluster.local/ns/{SHOP}/sa/ledger"
OTHER_TRUST_DOMAIN = f"spiffe://elsewhere.test/ns/{SHOP}/sa/orders"

# What an attacker brings: a token and a request. What it hears: a certificate, or the reason why
# not.
ENROL = """
import grpc, json, sys
from capsign_wire.adapter.v1 import identity_pb2, identity_pb2_grpc
from capsign_wire.failures import REASONS, FailureError

brought = json.load(sys.stdin)
credentials = grpc.ssl_channel_credentials(brought["bundle"].encode())
with grpc.secure_channel("capsign-adapter.capsign-system.svc:7444", credentials) as channel:
    asked = identity_pb2.EnrolRequest(
        certificate_request=bytes.fromhex(brought["request"]),
        service_account_token=brought["token"],
    )
    try:
        answer = identity_pb2_grpc.EnrolmentServiceStub(channel).Enrol(asked, timeout=20)
        print(answer.svid.spiffe_id)
    except grpc.RpcError as error:
        failure = FailureError.from_rpc(error)
        print(REASONS[failure.reason].name if failure else error.code())
"""


class Scene:
    """A victim that is injected, and a thief that is not, in the same namespace."""

    def __init__(self, fleet) -> None:
        self._fleet = fleet
        self._forge = Forge(fleet.cluster.service_account_key)
        sleeper = manifests.python("app", "import time; time.sleep(3600)", fleet.image)
        fleet.developer.create(
            manifests.pod(
                "victim",
                SHOP,
                manifests.pod_spec(sleeper, serviceAccountName="orders"),
                labels=INJECT,
            ),
            manifests.pod(
                "thief", SHOP, manifests.pod_spec(sleeper, serviceAccountName="stranger")
            ),
            manifests.pod("gone", SHOP, manifests.pod_spec(sleeper, serviceAccountName="orders")),
        )
        self.pods = {}
        for name in ("victim", "thief", "gone"):
            fleet.developer.wait("condition=Ready", f"pod/{name}", SHOP)
            self.pods[name] = fleet.kubectl.get("pod", name, SHOP)
        self.bundle = fleet.kubectl.get("configmap", "capsign-trust-bundle", SYSTEM)["data"][
            "bundle.pem"
        ]
        fleet.developer("delete", "pod", "gone", "--grace-period=1")

    def close(self) -> None:
        self._fleet.developer("delete", "pod", "victim", "thief", "--wait=false")

    def token(self, pod: str, *, audience: str = "capsign", **more) -> str:
        account = self._fleet.kubectl.get(
            "serviceaccount", self.pods[pod]["spec"]["serviceAccountName"], SHOP
        )
        return self._forge.token(self.pods[pod], account, audience=audience, **more)

    def stolen_token(self) -> str:
        """The very token of the victim's agent, off the node."""
        return (
            self._fleet.root_of("victim", "capsign-agent") / "var/run/secrets/capsign/token"
        ).read_text()

    def enrol_from(self, pod: str, token: str, *names: str) -> str:
        brought = {"bundle": self.bundle, "token": token, "request": request(*names).hex()}
        command = ("exec", "--stdin", pod, "--container=app", "--", "/usr/bin/python3", "-c", ENROL)
        return self._fleet.developer(*command, stdin=json.dumps(brought)).strip()

    def uid(self, pod: str) -> bytes:
        return uuid.UUID(self.pods[pod]["metadata"]["uid"]).bytes


@pytest.fixture(scope="module")
def scene(fleet):
    made = Scene(fleet)
    yield made
    made.close()


def test_without_an_attack_it_is_a_certificate(fleet, scene):
    """The control: what follows fails for its own reason, not because this test cannot ask."""
    assert scene.enrol_from("victim", scene.stolen_token()) == ORDERS
    entry = fleet.entries()[-1]
    issued = fleet.until_entry(
        lambda entry: isinstance(entry, IdentityIssued) and entry.pod_uid == scene.uid("victim"),
        "issue",
    )
    assert issued.workload == ORDERS, entry


@pytest.mark.parametrize(
    ("attack", "place", "forged", "names", "reason", "workload", "known_pod"),
    [
        (
            "a token of another audience",
            "victim",
            {"pod": "victim", "audience": "vault"},
            (),
            "SERVICE_TOKEN_REFUSED",
            "",
            "",
        ),
        (
            "an expired token",
            "victim",
            {"pod": "victim", "lives_s": -120},
            (),
            "SERVICE_TOKEN_REFUSED",
            "",
            "",
        ),
        (
            "a token of a deleted pod",
            "victim",
            {"pod": "gone"},
            (),
            "SERVICE_TOKEN_REFUSED",
            "",
            "",
        ),
        (
            "a token bound to no pod",
            "victim",
            {"pod": "victim", "bound": False},
            (),
            "SERVICE_TOKEN_MISPLACED",
            "",
            "",
        ),
        (
            "a stolen token from another pod",
            "thief",
            None,
            (),
            "SERVICE_TOKEN_MISPLACED",
            ORDERS,
            "victim",
        ),
        (
            "a request for another identity",
            "victim",
            None,
            (LEDGER,),
            "CERTIFICATE_REQUEST_REFUSED",
            ORDERS,
            "victim",
        ),
        (
            "a request for two identities",
            "victim",
            None,
            (ORDERS, LEDGER),
            "CERTIFICATE_REQUEST_REFUSED",
            "",
            "",
        ),
        (
            "another trust domain",
            "victim",
            None,
            (OTHER_TRUST_DOMAIN,),
            "CERTIFICATE_REQUEST_REFUSED",
            ORDERS,
            "victim",
        ),
        (
            "a workload that policy does not name",
            "thief",
            {"pod": "thief"},
            (),
            "IDENTITY_UNKNOWN",
            "",
            "thief",
        ),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) and " " in value else None,
)
def test_an_attack_is_refused_and_recorded(
    fleet, scene, attack, place, forged, names, reason, workload, known_pod
):
    token = scene.stolen_token() if forged is None else scene.token(**forged)
    before = len(fleet.entries())
    assert scene.enrol_from(place, token, *names) == reason, attack
    refused = [entry for entry in fleet.entries()[before:] if isinstance(entry, IdentityRefused)]
    assert reason in [reason_name(entry) for entry in refused]
    (entry,) = [entry for entry in refused if reason_name(entry) == reason]
    assert (entry.workload, entry.pod_uid) == (workload, scene.uid(known_pod) if known_pod else b"")


def test_a_made_up_token_is_refused_and_named_nowhere(fleet, scene):
    made_up = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJtZSJ9."
    assert scene.enrol_from("victim", made_up) == "SERVICE_TOKEN_REFUSED"
    log = fleet.kubectl("logs", "capsign-adapter-0", f"--namespace={SYSTEM}", "--all-containers")
    assert made_up not in log
    assert scene.stolen_token() not in log
