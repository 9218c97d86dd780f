"""Attacks on enrolment in real processes: an adapter on SoftHSM, a cluster over HTTPS. Each is
refused, and in the evidence.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager

import capsign
import grpc
import pytest
from capsign_adapter.enrol.enrolment import ENROLMENTS_OF_ONE_ADDRESS
from capsign_evidence.leaf_reader import IdentityIssued, IdentityRefused, Signed
from capsign_wire.adapter.v1 import identity_pb2 as pb
from capsign_wire.adapter.v1 import identity_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, OTHER
from support.certificate_requests import refused as bad_requests
from support.certificate_requests import request
from support.fake_cluster import Pod
from support.pod_deployment import PodDeployment

REFUSED = reasons.REASON_SERVICE_TOKEN_REFUSED
MISPLACED = reasons.REASON_SERVICE_TOKEN_MISPLACED
BAD_REQUEST = reasons.REASON_CERTIFICATE_REQUEST_REFUSED
UNKNOWN = reasons.REASON_IDENTITY_UNKNOWN


@pytest.fixture
def deployment(short_dir):
    made = PodDeployment(short_dir, svid_ttl_s=600, propagation_s=5, authority_ttl_s=86400)
    yield made
    made.close()


@contextmanager
def door(deployment: PodDeployment):
    """The listener for those who have no certificate."""
    options = [
        ("grpc.ssl_target_name_override", "localhost"),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    credentials = grpc.ssl_channel_credentials(deployment.published())
    with grpc.secure_channel(deployment.doors[0], credentials, options) as channel:
        yield identity_pb2_grpc.EnrolmentServiceStub(channel).Enrol


def ask(enrol, token: str, der: bytes | None = None, timeout: float = 30.0) -> pb.EnrolResponse:
    return enrol(
        pb.EnrolRequest(certificate_request=der or request(), service_account_token=token),
        timeout=timeout,
    )


def reason_of(enrol, token: str, der: bytes | None = None) -> int:
    with pytest.raises(grpc.RpcError) as caught:
        ask(enrol, token, der)
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None, caught.value.code()
    assert token not in str(failure)
    return failure.reason


def uid_of(pod: Pod) -> bytes:
    return bytes.fromhex(pod.uid.replace("-", ""))


def test_every_attack_is_refused_and_stands_in_the_log(deployment):
    cluster, pod = deployment.cluster, deployment.pod
    away = cluster.run("demo", "other-0", "other", "10.1.0.9")
    stranger = cluster.run("demo", "stranger-0", "stranger", "127.0.0.1")
    gone = cluster.run("demo", "app-1", "app", "127.0.0.1")
    of_the_gone = cluster.token(gone)
    with door(deployment) as enrol:
        ask(enrol, of_the_gone)  # so that the cluster's cache knows the token as good
        cluster.delete(gone)
        attacks = {
            "another audience": (cluster.token(pod, audience="vault"), None, REFUSED, "", b""),
            "expired": (cluster.token(pod, seconds=-5), None, REFUSED, "", b""),
            "made up": ("eyJhbGciOiJub25lIn0.e30.", None, REFUSED, "", b""),
            "of a pod that is gone": (of_the_gone, None, REFUSED, APP, uid_of(gone)),
            "bound to nothing": (cluster.token(None), None, MISPLACED, "", b""),
            "replayed from another pod": (
                cluster.token(away),
                None,
                MISPLACED,
                OTHER,
                uid_of(away),
            ),
            "another identity": (cluster.token(pod), request(OTHER), BAD_REQUEST, APP, uid_of(pod)),
            "an authority's rights": (
                cluster.token(pod),
                bad_requests()["CA:TRUE"],
                BAD_REQUEST,
                "",
                b"",
            ),
            "another key's signature": (
                cluster.token(pod),
                bad_requests()["signed by another key"],
                BAD_REQUEST,
                "",
                b"",
            ),
            "a workload that policy does not name": (
                cluster.token(stranger),
                None,
                UNKNOWN,
                "",
                uid_of(stranger),
            ),
        }
        for what, (token, der, reason, _, _) in attacks.items():
            assert reason_of(enrol, token, der) == reason, what
        ask(enrol, cluster.token(pod))
    entries = deployment.entries()
    refusals = [entry for entry in entries if isinstance(entry, IdentityRefused)]
    told = [(reason, workload, uid) for _, _, reason, workload, uid in attacks.values()]
    assert [(entry.reason, entry.workload, entry.pod_uid) for entry in refusals] == told
    issued = [
        entry.pod_uid
        for entry in entries
        if isinstance(entry, IdentityIssued) and entry.workload == APP
    ]
    assert issued == [uid_of(gone), uid_of(pod)]
    said = (deployment.root / "adapter-0.log").read_text()
    assert said.count('"identity.refused"') == len(attacks)
    tokens = [token for token, *_ in attacks.values()] + [cluster.adapter_token]
    assert not any(token in said for token in tokens)


def test_strangers_who_hold_every_place_at_the_door_do_not_hinder_a_pod_that_signs(deployment):
    """The cluster hangs and a crowd waits for it; other strangers only open connections. At the
    other listener nobody notices.
    """
    path = deployment.start_agent()
    strangers: list[threading.Thread] = []
    idle: list[socket.socket] = []
    with capsign.Signer(f"unix:{path}") as signer:

        def sign(count: int) -> None:
            for _ in range(count):
                signer.sign(
                    b"meanwhile",
                    purpose="jwt",
                    algorithm="Ed25519",
                    protocol="jwt",
                    role="issuer",
                    timeout=60,
                )

        sign(1)
        deployment.cluster.may_continue.clear()
        answers: list[str] = []

        def stranger() -> None:
            with door(deployment) as enrol:
                try:
                    ask(enrol, "eyJ.eyJ.sig")
                except grpc.RpcError as error:
                    answers.append(error.code().name)

        for _ in range(40):
            thread = threading.Thread(target=stranger, daemon=True)
            thread.start()
            strangers.append(thread)
        idle.extend(_connections(deployment.doors[0], 300))
        deployment.cluster.wait_for_reviews(ENROLMENTS_OF_ONE_ADDRESS)
        sign(200)
        deployment.cluster.may_continue.set()
        for thread in strangers:
            thread.join(60)
        for connection in idle:
            connection.close()
        sign(1)
    assert len(answers) == 40
    assert deployment.cluster.most_at_once <= 8
    assert sum(isinstance(entry, Signed) for entry in deployment.entries()) == 202


def _connections(address: str, count: int) -> list[socket.socket]:
    """Half of them say nothing, half shake hands and then say nothing. Some are closed by the other
    side: that is its right.
    """
    host, port = address.rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    made: list[socket.socket] = []
    for number in range(count):
        connection = socket.create_connection((host, int(port)), timeout=10)
        try:
            made.append(context.wrap_socket(connection) if number % 2 else connection)
        except OSError:
            connection.close()
    return made
