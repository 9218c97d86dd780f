"""The listener for those who have no certificate, over real TLS, and renewal over mTLS."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front import address_quota, enrolment_server
from capsign_adapter.front.address_quota import USUAL, AddressBounds
from capsign_adapter.front.enrolment_server import EnrolmentServer
from capsign_adapter.front.identity_servicer import IdentityServicer
from capsign_evidence.leaf_reader import IdentityIssued, IdentityRefused
from capsign_wire.adapter.v1 import identity_pb2 as pb
from capsign_wire.adapter.v1 import identity_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2 as reasons
from cryptography import x509
from support.adapter_rig import APP, OTHER
from support.ca import Authority
from support.certificate_requests import request
from support.enrolment_rig import EnrolmentRig

METHOD = "/capsign.adapter.v1.EnrolmentService/Enrol"


class Front:
    """Both listeners of an adapter that enrols; `enrol` and `renew` call them as pods do."""

    def __init__(
        self, door: EnrolmentRig, connections: int = 256, bounds: AddressBounds = USUAL
    ) -> None:
        self.door = door
        self.ca = Authority()
        self.metrics = Metrics()
        served = self.ca.issue("spiffe://capsign.test/adapter", dns=("localhost",))
        pairs = [(served.private_key, served.certificate)]
        credentials = grpc.ssl_server_credentials(pairs)
        self.server = EnrolmentServer(
            "127.0.0.1:0", credentials, door.enrolment, self.metrics, connections, bounds
        )
        self.server.start()
        self.mtls = grpc.server(
            futures.ThreadPoolExecutor(4), options=[("grpc.max_concurrent_streams", 4)]
        )
        servicer = IdentityServicer(door.enrolment, door.authority, self.metrics)
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(servicer, self.mtls)
        credentials = grpc.ssl_server_credentials(
            pairs, self.ca.certificate, require_client_auth=True
        )
        self.mtls_port = self.mtls.add_secure_port("127.0.0.1:0", credentials)
        self.mtls.start()

    @contextmanager
    def channel(self, port: int, who: str = ""):
        credential = self.ca.issue(who) if who else None
        key, certificate = (
            (credential.private_key, credential.certificate) if credential else (None, None)
        )
        credentials = grpc.ssl_channel_credentials(self.ca.certificate, key, certificate)
        options = [
            ("grpc.ssl_target_name_override", "localhost"),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
            yield channel

    def enrol(self, token: str, der: bytes | None = None) -> pb.EnrolResponse:
        asked = pb.EnrolRequest(
            certificate_request=request() if der is None else der, service_account_token=token
        )
        with self.channel(self.server.port) as channel:
            return identity_pb2_grpc.EnrolmentServiceStub(channel).Enrol(asked, timeout=15)

    def renew(self, who: str, token: str, der: bytes | None = None) -> pb.RenewResponse:
        asked = pb.RenewRequest(
            certificate_request=request() if der is None else der, service_account_token=token
        )
        with self.channel(self.mtls_port, who) as channel:
            return identity_pb2_grpc.IdentityServiceStub(channel).Renew(asked, timeout=15)

    def raw(self) -> ssl.SSLSocket:
        """A connection without gRPC at this end."""
        context = ssl.create_default_context(cadata=self.ca.certificate.decode())
        context.set_alpn_protocols(["h2"])
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=10)
        return context.wrap_socket(connection, server_hostname="localhost")

    def stop(self) -> None:
        self.server.stop(0.5)
        self.mtls.stop(0.5).wait()


@pytest.fixture
def door(tmp_path, rig):
    door = EnrolmentRig(tmp_path, rig)
    yield door
    door.close()


@pytest.fixture
def bounds():
    """Of the calls of one address."""
    return USUAL


@pytest.fixture
def front(door, bounds):
    front = Front(door, bounds=bounds)
    yield front
    front.stop()


def refusal(call, *arguments) -> FailureError:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None, f"not in our terms: {caught.value.code()}"
    return failure


def asked_for(front) -> dict[tuple[str, ...], float]:
    """What came of the certificates that were asked for."""
    return {
        labels: count
        for labels, count in front.metrics.snapshot()["capsign.identities"].items()
        if count
    }


def test_a_pod_enrols_without_a_certificate_and_renews_with_one(front):
    token = front.door.cluster.token(front.door.pod())
    answer = front.enrol(token)
    assert answer.svid.spiffe_id == APP
    certificate = x509.load_der_x509_certificate(answer.svid.certificates[0])
    assert answer.svid.expires_at.ToSeconds() == int(certificate.not_valid_after_utc.timestamp())
    assert list(answer.bundle.authorities) == [front.door.authority.certificate]
    again = front.renew(APP, token)
    assert again.svid.certificates != answer.svid.certificates
    assert [type(entry) for entry in front.door.entries()] == [IdentityIssued, IdentityIssued]
    assert asked_for(front) == {("done", "NONE"): 2}


def test_the_bundle_is_for_who_has_a_certificate(front):
    front.door.authority.sequence = 4
    with front.channel(front.mtls_port, APP) as channel:
        answer = identity_pb2_grpc.IdentityServiceStub(channel).GetTrustBundle(
            pb.GetTrustBundleRequest(), timeout=10
        )
    assert answer.bundle.sequence == 4


def test_a_token_replayed_from_this_address_is_refused_in_words_that_help(front):
    victim = front.door.pod("app", "web-0", "10.1.0.5")
    failure = refusal(front.enrol, front.door.cluster.token(victim))
    assert failure.reason == reasons.REASON_SERVICE_TOKEN_MISPLACED
    assert "pod_address_check" in failure.detail
    (entry,) = front.door.entries()
    assert isinstance(entry, IdentityRefused)
    assert asked_for(front) == {("refused", "SERVICE_TOKEN_MISPLACED"): 1}


def test_renewal_holds_the_certificate_against_the_token(front):
    token = front.door.cluster.token(front.door.pod("app"))
    assert refusal(front.renew, OTHER, token).reason == reasons.REASON_SERVICE_TOKEN_MISPLACED


@pytest.mark.parametrize(
    ("der", "token", "field"),
    [
        (b"", "t", "certificate_request"),
        (b"x", "", "service_account_token"),
        (b"x" * 4097, "t", "certificate_request"),
        (b"x", "t" * 8193, "service_account_token"),
        (b"x", "two\nlines", "service_account_token"),
    ],
)
def test_bounds_name_their_field_at_both_doors_before_anybody_is_asked(front, der, token, field):
    for failure in (refusal(front.enrol, token, der), refusal(front.renew, APP, token, der)):
        assert failure.reason in {reasons.REASON_INPUT_MALFORMED, reasons.REASON_INPUT_TOO_LARGE}
        assert failure.field == field
    assert front.door.cluster.requests == []
    assert front.door.entries() == []


def test_a_request_that_is_far_too_large_is_not_read(front):
    with pytest.raises(grpc.RpcError) as caught:
        front.enrol("t", b"x" * 1_000_000)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_what_is_no_message_gets_a_typed_answer(front):
    with front.channel(front.server.port) as channel:
        failure = refusal(channel.unary_unary(METHOD), b"\xff\xff")
    assert failure.reason == reasons.REASON_INPUT_MALFORMED


def test_i10_tls_1_2_is_refused_at_this_door_too(front):
    """gRPC would accept it: the call is ended before the token is read."""
    context = ssl.create_default_context(cadata=front.ca.certificate.decode())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", front.server.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(_opening())
        answer = _until(connection, b"TLS 1.3")
    assert b"TLS 1.3" in answer
    assert front.door.cluster.requests == []


@pytest.mark.parametrize("bounds", [AddressBounds(request_s=0.0)], ids=["at once"])
def test_who_does_not_send_the_request_is_hung_up_on(front):
    """The headers of a call came and its request never does. Its thread is free again when the
    sweep finds it.
    """
    with front.raw() as connection:
        connection.sendall(_opening())
        assert _until(connection, _RST_OF_STREAM_1)
    token = front.door.cluster.token(front.door.pod())
    assert front.enrol(token).svid.spiffe_id == APP


@pytest.mark.parametrize("bounds", [AddressBounds(open_calls=2)], ids=["two"])
def test_one_address_cannot_hold_every_place(front):
    """It opens a few calls and sends nothing; its next call is told so, and the threads that are
    left are for others.
    """
    assert address_quota.CALLS_OF_ONE_ADDRESS <= enrolment_server.THREADS // 8
    held = [front.raw() for _ in range(2)]
    try:
        for connection in held:
            connection.sendall(_opening())
        assert _holding(front, 2)
        assert refusal(front.enrol, "t").reason == reasons.REASON_OVERLOADED
    finally:
        for connection in held:
            connection.close()


@pytest.mark.parametrize("bounds", [AddressBounds(per_second=1, at_once=3)], ids=["three"])
def test_an_address_that_calls_too_often_is_told_to_wait(front):
    told = [refusal(front.enrol, "eyJ.eyJ.sig").reason for _ in range(3)]
    assert told == [reasons.REASON_SERVICE_TOKEN_REFUSED] * 3
    more = (
        refusal(front.enrol, "eyJ.eyJ.sig").reason for _ in range(50)
    )  # a slow call earns the next one
    assert reasons.REASON_RATE_LIMITED in more


def test_an_address_waits_by_a_clock_that_nobody_sets():
    """All its pods start at once, and its next call waits a tenth of a second: whatever becomes of
    the clock on the wall.
    """
    now = 0
    held = address_quota.AddressQuota(Buckets(lambda: now))
    for _ in range(address_quota.CALLS_AT_ONCE):
        held.demand_rate("10.1.0.5")
    with pytest.raises(FailureError) as caught:
        held.demand_rate("10.1.0.5")
    assert (caught.value.reason, caught.value.retry_after_ms) == (reasons.REASON_RATE_LIMITED, 100)
    now += 100
    held.demand_rate("10.1.0.5")


@pytest.mark.parametrize("door_of", ["enrolment", "renewal"])
def test_a_refused_call_leaves_nothing_behind(front, door_of):
    """Refusals one after another on one connection. Each once kept its call alive until the garbage
    collector came by, in a cycle of an exception and a frame that had a name for it; gRPC counts
    calls that are alive, and refused the next ones.
    """
    gc.collect()
    gc.disable()
    try:
        port, who = (front.server.port, "") if door_of == "enrolment" else (front.mtls_port, APP)
        with front.channel(port, who) as channel:
            if door_of == "enrolment":
                call, asked = identity_pb2_grpc.EnrolmentServiceStub(channel).Enrol, pb.EnrolRequest
            else:
                call, asked = identity_pb2_grpc.IdentityServiceStub(channel).Renew, pb.RenewRequest
            message = asked(certificate_request=request(), service_account_token="eyJ.eyJ.sig")
            for _ in range(30):
                assert refusal(call, message).reason == reasons.REASON_SERVICE_TOKEN_REFUSED
    finally:
        gc.enable()


def test_connections_are_bounded_and_come_free_again(door):
    front = Front(door, connections=3)
    try:
        idle = [front.raw() for _ in range(3)]
        with pytest.raises(OSError):  # noqa: PT011 - closed before the handshake: which error that is depends on the moment
            front.raw()
        idle.pop().close()
        token = door.cluster.token(door.pod())
        assert _eventually(lambda: front.enrol(token)).svid.spiffe_id == APP
        for connection in idle:
            connection.close()
    finally:
        front.stop()


def test_a_crowd_of_strangers_and_one_good_pod(front):
    """Forty callers with made-up tokens at once; every one is answered, and the pod that may gets
    its certificate.
    """
    token = front.door.cluster.token(front.door.pod())
    seen: list[str] = []

    def stranger():
        try:
            front.enrol("eyJ.eyJ.sig")
        except grpc.RpcError as error:
            failure = FailureError.from_rpc(error)
            seen.append(failure.row.name if failure else error.code().name)

    crowd = [threading.Thread(target=stranger) for _ in range(40)]
    for thread in crowd:
        thread.start()
    identity = _eventually(lambda: front.enrol(token))
    for thread in crowd:
        thread.join()
    assert identity.svid.spiffe_id == APP
    assert len(seen) == 40
    assert set(seen) <= {"SERVICE_TOKEN_REFUSED", "OVERLOADED", "RATE_LIMITED"}


_RST_OF_STREAM_1 = bytes.fromhex("0000040300" + "00000001")


def _opening() -> bytes:
    """HTTP/2: preface, settings, and the headers of a call to Enrol whose request never comes."""

    def literal(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value

    fields = {
        b":method": b"POST",
        b":scheme": b"https",
        b":path": METHOD.encode(),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    block = b"".join(literal(name, value) for name, value in fields.items())
    headers = len(block).to_bytes(3, "big") + b"\x01\x04" + (1).to_bytes(4, "big") + block
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000") + headers


def _until(connection: ssl.SSLSocket, word: bytes) -> bytes:
    """What arrives, up to where the word is in it or the connection ends."""
    got = b""
    while word not in got and (more := connection.recv(4096)):
        got += more
    return got if word in got else b""


def _holding(front: Front, count: int) -> bool:
    """Wait until the server has that many calls that wait for their request."""
    return _poll(lambda: len(front.server.quota.deadlines) == count)


def _poll(question) -> bool:
    waiting = threading.Event()
    return any(question() or waiting.wait(0.02) for _ in range(500))


def _eventually(call):
    """Its result, once whoever is in the way has left: a caller that is told to wait does."""
    waiting = threading.Event()
    for _ in range(100):
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() not in {
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.UNAVAILABLE,
            }:
                raise
            waiting.wait(0.1)
    return call()
