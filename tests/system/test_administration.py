"""A responder gets through, whatever workloads, tenants and strangers do at the other listeners, or
at this one.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from capsign_cli.dev.ca import DevelopmentCa
from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc, evidence_pb2, evidence_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.hostile import deployment, failure_of

SIGN = "/capsign.adapter.v1.SigningService/Sign"
WATCH = "/capsign.adapter.v1.CapabilityService/Watch"
ISSUE = "/capsign.adapter.v1.CapabilityService/IssueHandles"
REVOKE = "/capsign.adapter.v1.AdminService/Revoke"
CHECKPOINT = "/capsign.adapter.v1.EvidenceService/GetCheckpoint"


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        yield one


def channel_as(dev, name: str, where: str = "admin", *, path: str = "") -> grpc.Channel:
    """As a client of the deployment, or with a fresh certificate for `path`, on a connection of its
    own.
    """
    if path:
        made = DevelopmentCa(dev.directory / "pki").issue(f"{name}-{os.urandom(4).hex()}", path)
        files = made.private_key, made.certificate
    else:
        about = dev.about["clients"][name]
        files = Path(about["private_key"]), Path(about["certificate"])
    credentials = grpc.ssl_channel_credentials(
        Path(dev.about["ca"]).read_bytes(), *[file.read_bytes() for file in files]
    )
    options = [
        ("grpc.ssl_target_name_override", dev.about["server_name"]),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    return grpc.secure_channel(dev.about["adapters"][0][where], credentials, options)


def address(dev, where: str) -> tuple[str, int]:
    host, port = dev.about["adapters"][0][where].split(":")
    return host, int(port)


def revoke(channel: grpc.Channel) -> None:
    """What harms nobody here, and is an act like every other. Answers within the time that a
    responder has.
    """
    kind = admin_pb2.REVOCATION_KIND_HANDLE
    request = admin_pb2.RevokeRequest(kind=kind, target=os.urandom(16).hex())
    assert admin_pb2_grpc.AdminServiceStub(channel).Revoke(request, timeout=20).revocation_epoch


class Never:
    """Requests that never come, until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def requests(self):
        """None."""
        self.over.wait(60)
        yield from ()


@contextmanager
def crowd(dev, paths: list[str], *, streams: int, waiting: int, where: str = "address"):
    """For each of these identities a connection with idle streams, watches and calls whose request
    never comes.
    """
    never = Never()
    with ExitStack() as stack:
        for path in paths:
            channel = stack.enter_context(channel_as(dev, "crowd", where, path=path))
            held: Any = [
                channel.stream_stream(SIGN)(never.requests(), timeout=100) for _ in range(streams)
            ]
            held += [channel.unary_stream(WATCH)(b"", timeout=100) for _ in range(streams)]
            held += [
                channel.stream_unary(ISSUE).future(never.requests(), timeout=100)
                for _ in range(waiting)
            ]
            held += [
                channel.stream_unary(REVOKE).future(never.requests(), timeout=100)
                for _ in range(waiting)
            ]
            stack.callback(lambda held=held: [call.cancel() for call in held])
            # when this is answered, one way or the other, the others are there
            with suppress(grpc.RpcError):
                channel.unary_unary(ISSUE)(b"", timeout=20)
        stack.callback(never.over.set)
        yield


def test_a_workload_that_holds_all_it_can_keeps_nobody_from_revoking(dev):
    paths = ["/ns/demo/sa/app"] * 3 + [
        "/ns/demo/sa/other"
    ]  # the last has ordinary streams beside it
    with crowd(dev, paths, streams=24, waiting=4), channel_as(dev, "responder") as people:
        for _ in range(10):
            revoke(people)


def test_all_workloads_of_a_tenant_and_strangers_keep_nobody_from_revoking(dev):
    paths = ["/ns/demo/sa/app", "/ns/demo/sa/other", "/ns/evil/sa/app"] * 2
    with crowd(dev, paths, streams=40, waiting=40), channel_as(dev, "responder") as people:
        for _ in range(10):
            revoke(people)


def test_the_command_revokes_beside_a_crowd(dev):
    with crowd(dev, ["/ns/demo/sa/app", "/ns/demo/sa/other"], streams=24, waiting=12):
        command = [sys.executable, "-m", "capsign_cli", "revoke", "handle", os.urandom(16).hex()]
        command += ["--dir", str(dev.directory), "--as", "responder", "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["revocation_epoch"]


def test_the_command_tries_again_while_its_identity_has_no_place(dev):
    """Calls of a colleague that hang held all places of the identity: `capsign revoke` heard
    OVERLOADED and ended. They are closed after seconds.
    """
    never = Never()
    with channel_as(dev, "responder") as channel:
        calls: Any = [channel.stream_unary(REVOKE) for _ in range(12)]
        held = [call.future(never.requests(), timeout=100) for call in calls]
        refused = threading.Event()
        for call in held:
            call.add_done_callback(lambda _: refused.set())
        assert refused.wait(20)  # those above the bound: all places are taken
        command = [sys.executable, "-m", "capsign_cli", "revoke", "handle", os.urandom(16).hex()]
        command += ["--dir", str(dev.directory), "--as", "responder"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        never.over.set()
    assert done.returncode == 0, done.stderr
    assert "OVERLOADED: the adapter is busy" in done.stderr


@contextmanager
def flood(dev, name: str, method: str, request: bytes, *, path: str = "", threads: int = 24):
    """Calls without end at the listener for people; gives what they heard."""
    heard: Counter[str] = Counter()
    over = threading.Event()

    def one(channel: grpc.Channel) -> None:
        call: Any = channel.unary_unary(method)
        while not over.is_set():
            try:
                call(request, timeout=20)
            except grpc.RpcError as error:
                failure = FailureError.from_rpc(error)
                heard[failure.row.name if failure is not None else str(error.code())] += 1
            else:
                heard["done"] += 1

    with channel_as(dev, name, path=path) as channel:
        at_work = [threading.Thread(target=one, args=(channel,)) for _ in range(threads)]
        for thread in at_work:
            thread.start()
        try:
            yield heard
        finally:
            over.set()
            for thread in at_work:
                thread.join()


REVOKES_ONE = admin_pb2.RevokeRequest(
    kind=admin_pb2.REVOCATION_KIND_HANDLE, target="ab" * 16
).SerializeToString()
FLOODS = {
    "a workload that revokes": ("app", "/ns/demo/sa/app", REVOKE, {"ROLE_MISSING", "OVERLOADED"}),
    "a workload that looks": ("app", "/ns/evil/sa/app", CHECKPOINT, {"ROLE_MISSING", "OVERLOADED"}),
    "an auditor who revokes": ("auditor", "", REVOKE, {"ROLE_MISSING", "OVERLOADED"}),
    "an auditor who looks": ("auditor", "", CHECKPOINT, {"done", "OVERLOADED"}),
    "an operator who revokes": ("operator", "", REVOKE, {"done", "OVERLOADED"}),
}


@pytest.mark.parametrize("who", FLOODS)
def test_a_flood_of_calls_at_the_door_of_people_keeps_nobody_from_revoking(dev, who):
    """Whoever holds a certificate reaches this door; what one identity asks there without end, and
    what is refused to it, leaves another's revocation its place.
    """
    name, path, method, expected = FLOODS[who]
    request = REVOKES_ONE if method == REVOKE else b""
    with (
        flood(dev, name, method, request, path=path) as heard,
        channel_as(dev, "responder") as people,
    ):
        for _ in range(10):
            revoke(people)
    assert heard
    assert set(heard) <= expected


def test_connections_of_strangers_at_either_listener_keep_nobody_from_revoking(dev):
    """Half of them say nothing, half begin a handshake; both are gone after seconds, and there is
    room beside them.
    """
    with ExitStack() as stack:
        for number in range(1200):
            where = "address" if number % 2 else "admin"
            one = stack.enter_context(socket.create_connection(address(dev, where), timeout=20))
            if number % 4 > 1:
                one.sendall(b"\x16\x03\x01\x02\x00\x01")
        with channel_as(dev, "responder") as people:
            revoke(people)


def test_a_stranger_with_a_good_certificate_is_refused_at_the_door_of_people(dev):
    for name, path in (("app", ""), ("stranger", "/ns/evil/sa/app")):
        with channel_as(dev, name, path=path) as channel:
            for method in (REVOKE, CHECKPOINT, "/capsign.adapter.v1.AdminService/ListKeys"):
                assert (
                    failure_of(channel.unary_unary(method), b"").reason
                    == reasons.REASON_ROLE_MISSING
                )


def test_workloads_at_the_door_of_people_take_no_place_there(dev):
    paths = ["/ns/demo/sa/app", "/ns/evil/sa/app"]
    with (
        crowd(dev, paths, streams=0, waiting=60, where="admin"),
        channel_as(dev, "responder") as people,
    ):
        for _ in range(10):
            revoke(people)


def test_auditors_who_fill_what_is_for_looking_leave_what_is_for_revoking(dev):
    never = Never()
    with ExitStack() as stack:
        held: list[Any] = []
        for name in ("auditor", "operator", "responder"):
            channel = stack.enter_context(channel_as(dev, name))
            held += [
                channel.stream_unary(CHECKPOINT).future(never.requests(), timeout=60)
                for _ in range(20)
            ]
        auditor = stack.enter_context(channel_as(dev, "auditor"))
        held += [
            auditor.stream_unary(REVOKE).future(never.requests(), timeout=60) for _ in range(20)
        ]
        stack.callback(never.over.set)
        with channel_as(dev, "responder") as people:
            for _ in range(5):
                revoke(people)
        told = {FailureError.from_rpc(call.exception()).row.name for call in held if call.done()}
        assert told <= {"OVERLOADED", "ROLE_MISSING"}


def test_what_is_needed_of_the_evidence_is_there_too(dev):
    with channel_as(dev, "responder") as people:
        stub = evidence_pb2_grpc.EvidenceServiceStub(people)
        assert stub.GetCheckpoint(evidence_pb2.GetCheckpointRequest(), timeout=20).verifier_key
        assert stub.GetEntries(evidence_pb2.GetEntriesRequest(index=0, width=1), timeout=20).entries
        assert (
            admin_pb2_grpc.AdminServiceStub(people)
            .GetStatus(admin_pb2.GetStatusRequest(), timeout=20)
            .revocation_epoch
        )
        unknown: Any = people.unary_unary(ISSUE)
        with pytest.raises(grpc.RpcError) as caught:
            unknown(b"", timeout=20)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_stranger_needs_a_certificate_for_more_than_a_handshake(dev):
    context = ssl.create_default_context(cafile=dev.about["ca"])
    context.set_alpn_protocols(["h2"])
    raw = socket.create_connection(address(dev, "admin"), timeout=20)
    # With TLS 1.3 a client hears only after its own part is done that its certificate was wanted.
    with context.wrap_socket(raw, server_hostname=dev.about["server_name"]) as one:
        try:
            heard = one.recv(65536)
        except ssl.SSLError:
            heard = b""
    assert not heard
