"""Who gets in: over real TLS, with each kind of certificate that must not."""

from __future__ import annotations

import datetime
import socket
import ssl

import grpc
import pytest
from capsign_adapter.front import capacity
from capsign_wire.adapter.v1 import capability_pb2, capability_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from cryptography import x509
from support.adapter_rig import APP, STRANGER, AdapterRig
from support.ca import Authority, usage
from support.replica import RunningReplica


def issue(channel: grpc.Channel) -> capability_pb2.IssueHandlesResponse:
    return capability_pb2_grpc.CapabilityServiceStub(channel).IssueHandles(
        capability_pb2.IssueHandlesRequest(), timeout=10
    )


def refusal(channel: grpc.Channel) -> FailureError:
    with pytest.raises(grpc.RpcError) as caught:
        issue(channel)
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None, f"not in our terms: {caught.value.code()}"
    assert caught.value.code() == failure.row.status
    return failure


def test_a_workload_that_policy_names_gets_its_handles(replica):
    with replica.as_(APP) as channel:
        handles = issue(channel).handles
    assert [handle.grant for handle in handles] == ["orders-jwt", "release", "slow", "thrice"]


def test_a_workload_that_policy_does_not_name_is_refused(replica):
    with replica.as_(STRANGER) as channel:
        assert refusal(channel).reason == reasons.REASON_IDENTITY_UNKNOWN


@pytest.mark.parametrize(
    "uris", [(), (APP, "spiffe://capsign.test/ns/demo/sa/other"), ("https://capsign.test/app",)]
)
def test_a_certificate_without_exactly_one_spiffe_id_is_refused(replica, uris):
    with replica.channel(replica.authority.issue(*uris)) as channel:
        assert refusal(channel).reason == reasons.REASON_IDENTITY_UNKNOWN


NOBODY = {
    "a zero byte and more": APP.encode() + b"\0.evil.test",
    "a zero byte at the end": APP.encode() + b"\0",
    "a zero byte before": b"\0" + APP.encode(),
    "a line end after it": APP.encode() + b"\n",
    "a blank after it": APP.encode() + b" ",
    "not ASCII": APP.encode() + "/\u00e9".encode(),
    "no UTF-8": APP.encode() + b"/\xff\xfe",
    "longer than the log can name": APP.encode() + b"/" + b"x" * 256,
    "another scheme": APP.replace("spiffe", "https").encode(),
    "the scheme in capitals": APP.replace("spiffe", "SPIFFE").encode(),
    "the trust domain in capitals": APP.replace("capsign.test", "CAPSIGN.test").encode(),
    "a port": APP.replace("capsign.test", "capsign.test:443").encode(),
    "a user": APP.replace("capsign.test", "me@capsign.test").encode(),
    "a query": APP.encode() + b"?x=1",
    "a fragment": APP.encode() + b"#x",
    "an escape": APP.replace("app", "%61pp").encode(),
    "an empty segment": APP.replace("/sa/", "//sa/").encode(),
    "a slash after it": APP.encode() + b"/",
    "a segment that goes nowhere": APP.replace("/sa/", "/./sa/").encode(),
    "a segment that goes up": APP.replace("/sa/", "/sa/x/../").encode(),
    "no path": b"spiffe://capsign.test",
    "no trust domain": b"spiffe:///ns/demo/sa/app",
    "nothing": b"",
}
"""URIs that are nearly, or up to some byte, that of a workload which signs."""


@pytest.mark.parametrize("uri", NOBODY.values(), ids=NOBODY)
def test_a_uri_that_is_not_whole_and_well_formed_names_nobody(replica, uri):
    """What came in: `.../sa/app` and a zero byte with anything after it. gRPC's own reading of the
    URI is a C string, so it was taken for the workload, and signed.
    """
    with replica.channel(replica.authority.issue(uri)) as channel:
        assert refusal(channel).reason == reasons.REASON_IDENTITY_UNKNOWN


LEAVES_OF_NOBODY = {
    "an authority": (x509.BasicConstraints(ca=True, path_length=None),),
    "an authority that may sign": (
        x509.BasicConstraints(ca=True, path_length=0),
        usage(signs=True, signs_certificates=True, signs_lists=True),
    ),
    "a key that signs certificates": (usage(signs=True, signs_certificates=True),),
    "a key that signs lists": (usage(signs=True, signs_certificates=False, signs_lists=True),),
}


@pytest.mark.parametrize("extensions", LEAVES_OF_NOBODY.values(), ids=LEAVES_OF_NOBODY)
def test_a_certificate_that_may_sign_others_is_nobodys_identity(replica, extensions):
    with replica.channel(replica.authority.issue(APP, extensions=extensions)) as channel:
        assert refusal(channel).reason == reasons.REASON_IDENTITY_UNKNOWN


def test_a_leaf_as_the_specification_wants_it_is_served(replica):
    leaf = (
        x509.BasicConstraints(ca=False, path_length=None),
        usage(signs=True, signs_certificates=False),
    )
    with replica.channel(
        replica.authority.issue(APP, dns=("app.demo",), extensions=leaf)
    ) as channel:
        assert issue(channel).handles


@pytest.mark.parametrize("kind", ["another authority", "expired", "none"])
def test_tls_itself_keeps_out_what_it_cannot_verify(replica, kind):
    credential = {
        "another authority": Authority("impostor").issue(APP),
        "expired": replica.authority.issue(APP, life=-datetime.timedelta(minutes=5)),
        "none": None,
    }[kind]
    with replica.channel(credential) as channel, pytest.raises(grpc.RpcError) as caught:
        issue(channel)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_connections_are_bounded_and_come_free_again(tmp_path, monkeypatch):
    """Somebody opens connections and says nothing: beyond the bound they are closed at once, and
    one that ends makes room.
    """
    monkeypatch.setattr(capacity, "HANDSHAKING", 8)
    small = RunningReplica(tmp_path, AdapterRig(tmp_path / "store"), streams=4)
    most = capacity.connections(capacity.raise_descriptors(), 4).main
    certificate, key = small.authority.issue(APP).write(tmp_path, "many")
    context = ssl.create_default_context(cadata=small.authority.certificate.decode())
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])

    def connect() -> ssl.SSLSocket:
        host, port = small.address.split(":")
        return context.wrap_socket(
            socket.create_connection((host, int(port)), timeout=10), server_hostname="localhost"
        )

    held = []
    try:
        held += [connect() for _ in range(most)]
        with pytest.raises(OSError):  # noqa: PT011 - closed before the handshake: which error that is depends on the moment
            connect()
        held.pop().close()
        with small.as_(APP) as channel:
            request = capability_pb2.IssueHandlesRequest()
            stub = capability_pb2_grpc.CapabilityServiceStub(channel)
            assert stub.IssueHandles(request, timeout=10, wait_for_ready=True).handles
    finally:
        for connection in held:
            connection.close()
        small.stop()


def test_a_compressed_request_is_refused(replica):
    """A gzip message of a few kilobytes may become megabytes before anybody has looked at it."""
    with replica.as_(APP) as channel:
        stub = capability_pb2_grpc.CapabilityServiceStub(channel)
        request = capability_pb2.RenewHandlesRequest(tokens=[b"0" * 4096])
        with pytest.raises(grpc.RpcError) as caught:
            stub.RenewHandles(request, timeout=10, compression=grpc.Compression.Gzip)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_an_adapter_of_another_authority_is_not_believed(replica):
    credential = replica.authority.issue(APP)
    with (
        replica.channel(credential, root=Authority("impostor").certificate) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        issue(channel)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_i10_tls_1_2_is_refused_by_a_typed_failure(replica, tmp_path):
    """gRPC has no minimum version: the handshake succeeds, and the first call must say why it is
    not served.
    """
    certificate, key = replica.authority.issue(APP).write(tmp_path, "old")
    context = ssl.create_default_context(cadata=replica.authority.certificate.decode())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    host, port = replica.address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        assert connection.version() == "TLSv1.2"
        answer = _unary_by_hand(connection, "/capsign.adapter.v1.CapabilityService/IssueHandles")
    assert b"TLS_TOO_OLD" in answer or b"TLS 1.3" in answer


def test_a_new_certificate_is_served_without_a_restart(replica):
    with replica.as_(APP) as channel:
        issue(channel)
    fresh = replica.authority.issue("spiffe://capsign.test/adapter", dns=("localhost",))
    fresh.write(replica.directory, "server")
    assert _served(replica).strip() == fresh.certificate.decode().strip()


def test_half_a_new_certificate_leaves_the_old_one_in_force(replica):
    (replica.directory / "server.key").unlink()
    with replica.as_(APP) as channel:
        assert issue(channel).handles


def _served(replica) -> str:
    context = ssl.create_default_context(cadata=replica.authority.certificate.decode())
    certificate, key = replica.authority.issue(APP).write(replica.directory, "probe")
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    host, port = replica.address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True))


def _unary_by_hand(connection: ssl.SSLSocket, path: str) -> bytes:
    """One unary call as HTTP/2 frames, with literal headers and no Huffman coding, so that the
    answer can be read as text.
    """

    def literal(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    headers = b"".join(
        literal(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", path.encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
    )

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return (
            len(payload).to_bytes(3, "big")
            + bytes([kind, flags])
            + stream.to_bytes(4, "big")
            + payload
        )

    no_table = frame(4, 0, 0, b"\x00\x01\x00\x00\x00\x00")
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + no_table + frame(4, 1, 0, b""))
    connection.sendall(frame(1, 4, 1, headers) + frame(0, 1, 1, b"\x00\x00\x00\x00\x00"))
    connection.settimeout(10)
    answer = b""
    while b"grpc-status" not in answer:
        part = connection.recv(65536)
        if not part:
            break
        answer += part
    return answer
