"""Those who reach the adapter's port and mean harm: strangers, old TLS, other workloads, a stolen
handle, and floods of each.
"""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import capsign
import grpc
import pytest
from capsign_cli.dev.ca import DevelopmentCa
from capsign_wire.adapter.v1 import (
    admin_pb2,
    capability_pb2,
    capability_pb2_grpc,
    evidence_pb2,
    signing_pb2,
    signing_pb2_grpc,
)
from capsign_wire.bounds import ADAPTER_REQUEST_BYTES
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2 as types
from support.ca import Authority
from support.hostile import (
    assert_nothing_told,
    bare_status,
    deployment,
    failure_of,
    forget_peak,
    peak,
    rss,
)

JWT = {"purpose": "jwt", "algorithm": "ES256", "protocol": "jwt"}
CANARY = b"canary-90ab4e-not-to-be-printed"
ROOM_MIB = 128
METHODS = [
    (f"/{service.full_name}/{method.name}", method)
    for module in (admin_pb2, capability_pb2, evidence_pb2, signing_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
TOKENS: list[bytes] = []
"""Every handle that these tests saw: none may be printed."""


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        yield one
        assert_nothing_told(one, CANARY, *TOKENS)


def channel_as(
    dev, name: str = "app", *, certificate: bytes = b"", key: bytes = b"", ca: bytes = b""
) -> grpc.Channel:
    about = dev.about["clients"].get(name)
    credentials = grpc.ssl_channel_credentials(
        ca or Path(dev.about["ca"]).read_bytes(),
        key or Path(about["private_key"]).read_bytes(),
        certificate or Path(about["certificate"]).read_bytes(),
    )
    options = [
        ("grpc.ssl_target_name_override", dev.about["server_name"]),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.max_send_message_length", -1),
    ]
    return grpc.secure_channel(dev.about["adapters"][0]["address"], credentials, options)


@pytest.fixture
def app(dev):
    with channel_as(dev) as channel:
        yield channel


def handles_of(channel: grpc.Channel) -> dict[str, bytes]:
    issued = capability_pb2_grpc.CapabilityServiceStub(channel).IssueHandles(
        capability_pb2.IssueHandlesRequest(), timeout=20
    )
    TOKENS.extend(handle.token for handle in issued.handles)
    return {handle.purpose: handle.token for handle in issued.handles}


@pytest.fixture(autouse=True)
def _the_next_honest_call_signs(dev):
    agent, adapter = dev.agent, dev.adapter()
    yield
    with capsign.Signer(dev.socket(), timeout=30) as signer:
        assert signer.sign(b"still here", **JWT).value
    assert agent.is_running()
    assert adapter.is_running()


def item(data: bytes = CANARY) -> signing_pb2.SignItem:
    return signing_pb2.SignItem(intent_id=new_intent_id(), input=data)


def batch(handle: bytes, *items: signing_pb2.SignItem, **group) -> signing_pb2.SignRequest:
    group.setdefault("algorithm", algorithms.ALGORITHM_ED25519)
    group.setdefault("context", types.ContextSuffix(protocol="jwt"))
    groups = [signing_pb2.SignGroup(items=items or [item()], **group)]
    return signing_pb2.SignRequest(batch_id=1, handles=[handle], groups=groups)


def sign(channel: grpc.Channel, request: signing_pb2.SignRequest) -> signing_pb2.SignResponse:
    (answer,) = signing_pb2_grpc.SigningServiceStub(channel).Sign(iter([request]), timeout=30)
    return answer


def reason_of(channel: grpc.Channel, request: signing_pb2.SignRequest) -> str:
    (group,) = sign(channel, request).groups
    return reasons.Reason.Name(group.items[0].failure.reason).removeprefix("REASON_")


# What is no message, at every method there is.


@pytest.mark.parametrize(("path", "method"), METHODS, ids=[path for path, _ in METHODS])
@pytest.mark.parametrize("wire", [b"\xff", b"\x0b" * 64, CANARY], ids=["byte", "groups", "text"])
def test_bytes_that_are_no_message_get_a_typed_answer_and_take_no_place(
    dev, app, path, method, wire
):
    for _ in range(12):
        if method.client_streaming:
            (answer,) = app.stream_stream(path)(iter([wire]), timeout=20)
            assert (
                signing_pb2.SignResponse.FromString(answer).failure.reason
                == reasons.REASON_INPUT_MALFORMED
            )
        elif method.server_streaming:
            assert (
                failure_of(_first_of(app.unary_stream(path)), wire).reason
                == reasons.REASON_INPUT_MALFORMED
            )
        else:
            failure = failure_of(app.unary_unary(path), wire)
            assert failure.reason == reasons.REASON_INPUT_MALFORMED


def _first_of(call):
    return lambda wire, timeout: next(call(wire, timeout=timeout))


def test_a_batch_cut_off_at_every_byte(app):
    whole = batch(handles_of(app)["jwt"]).SerializeToString()
    call = app.stream_stream("/capsign.adapter.v1.SigningService/Sign")
    pieces = [whole[:size] for size in range(len(whole))]
    for size, answer in enumerate(call(iter(pieces), timeout=60)):
        told = signing_pb2.SignResponse.FromString(answer)
        refusals = [told.failure] if told.HasField("failure") else [told.groups[0].items[0].failure]
        assert [one.reason for one in refusals if one.reason], size
        assert not any(one.signatures for group in told.groups for one in group.items), size


@pytest.mark.parametrize(
    "changed",
    [
        {"handle_index": 5},
        {"handle_index": 2**31},
        {"algorithm": 99},
        {"algorithm": 0},
        {"caller": "app\nforged line"},
        {"caller": "\x1b[31m"},
        {"caller": "a" * 65},
        {"context": types.ContextSuffix(protocol="jwt\0")},
        {"context": types.ContextSuffix(protocol="jwt", transcript=b"t" * 33)},
        {"expected_kid": "k" * 65},
        {"expected_kid": "k\r\n"},
        {"items": [signing_pb2.SignItem(intent_id=b"i" * 15, input=CANARY)]},
        {"items": [signing_pb2.SignItem(intent_id=b"\xff" * 16, input=CANARY)]},
        pytest.param(
            {
                "items": [
                    signing_pb2.SignItem(intent_id=new_intent_id(), input=bytes(65536) + CANARY)
                ]
            },
            id="a message above its bound",  # with the id in it, workers would call it differently
        ),
        {"items": []},
    ],
    ids=str,
)
def test_a_field_that_breaks_its_bound(app, changed):
    good = signing_pb2.SignGroup(
        algorithm=algorithms.ALGORITHM_ED25519,
        context=types.ContextSuffix(protocol="jwt"),
        items=[item()],
    )
    fields = {"algorithm": good.algorithm, "context": good.context, "items": good.items} | changed
    token = handles_of(app)["jwt"]
    told = sign(
        app,
        signing_pb2.SignRequest(
            batch_id=9, handles=[token], groups=[signing_pb2.SignGroup(**fields)]
        ),
    )
    assert told.batch_id == 9
    failure = told.failure if told.HasField("failure") else told.groups[0].items[0].failure
    assert failure.reason in {reasons.REASON_INPUT_MALFORMED, reasons.REASON_INPUT_TOO_LARGE}
    assert CANARY.decode() not in failure.message


# Who is let in.


def stranger(dev, path: str) -> tuple[bytes, bytes]:
    """A certificate of the right CA for somebody whom policy does not name."""
    made = DevelopmentCa(dev.directory / "pki").issue("stranger-" + os.urandom(4).hex(), path)
    return made.certificate.read_bytes(), made.private_key.read_bytes()


def test_an_identity_that_policy_does_not_name_is_refused_everywhere(dev):
    certificate, key = stranger(dev, "/ns/evil/sa/app")
    with channel_as(dev, certificate=certificate, key=key) as channel:
        for path, method in METHODS:
            if method.client_streaming:
                answers: Any = channel.stream_stream(path)(
                    iter([batch(b"token").SerializeToString()]), timeout=20
                )
                assert (
                    failure_of(lambda timeout, answers=answers: list(answers)).reason
                    == reasons.REASON_IDENTITY_UNKNOWN
                )
            elif method.server_streaming:
                assert (
                    failure_of(_first_of(channel.unary_stream(path)), b"").reason
                    == reasons.REASON_IDENTITY_UNKNOWN
                )
            else:
                failure = failure_of(channel.unary_unary(path), b"")
                assert failure.row.name in {"IDENTITY_UNKNOWN", "ROLE_MISSING", "INPUT_MALFORMED"}


def test_a_certificate_of_another_authority_or_none_or_an_old_one_gets_no_word(dev):
    spiffe_id = dev.about["clients"]["app"]["spiffe_id"]
    impostor = Authority("impostor").issue(spiffe_id)
    with channel_as(dev, certificate=impostor.certificate, key=impostor.private_key) as channel:
        call: Any = channel.unary_unary("/capsign.adapter.v1.CapabilityService/IssueHandles")
        assert bare_status(call, b"") == grpc.StatusCode.UNAVAILABLE
    assert issued_by_an_older_self(dev) == grpc.StatusCode.UNAVAILABLE


def issued_by_an_older_self(dev) -> grpc.StatusCode:
    """A certificate that has expired, of an authority of the same name with another key."""
    old = Authority("capsign development CA").issue(
        dev.about["clients"]["app"]["spiffe_id"], life=-datetime.timedelta(minutes=1)
    )
    with channel_as(dev, certificate=old.certificate, key=old.private_key) as channel:
        return bare_status(
            channel.unary_unary("/capsign.adapter.v1.CapabilityService/IssueHandles"), b""
        )


def test_a_stolen_handle_is_of_no_use_and_the_theft_is_in_the_log(dev, app):
    token = handles_of(app)["jwt"]
    with channel_as(dev, "other") as thief:
        assert reason_of(thief, batch(token)) == "HANDLE_STOLEN"
    made = DevelopmentCa(dev.directory / "pki").issue("copy", "/ns/demo/sa/app")
    with channel_as(
        dev, certificate=made.certificate.read_bytes(), key=made.private_key.read_bytes()
    ) as copy:
        assert (
            reason_of(copy, batch(token)) == "HANDLE_STOLEN"
        )  # the same identity with another key
    stolen = [
        entry
        for entry in dev.entries()
        if getattr(entry, "reason", 0) == reasons.REASON_HANDLE_STOLEN
    ]
    assert len(stolen) == 2


def test_a_handle_altered_in_any_byte_is_refused(dev, app):
    token = handles_of(app)["jwt"]
    requests = []
    for at in range(0, len(token), 7):
        bad = bytearray(token)
        bad[at] ^= 1
        requests.append(batch(bytes(bad)))
    answers = list(signing_pb2_grpc.SigningServiceStub(app).Sign(iter(requests), timeout=60))
    names = {reasons.Reason.Name(answer.groups[0].items[0].failure.reason) for answer in answers}
    assert len(answers) == len(requests)
    assert names <= {
        "REASON_HANDLE_FORGED",
        "REASON_HANDLE_STOLEN",
        "REASON_HANDLE_EXPIRED",
        "REASON_INPUT_MALFORMED",
    }


@pytest.mark.parametrize(
    ("purpose", "group", "reason"),
    [
        ("jwt", {"algorithm": algorithms.ALGORITHM_RS256}, "ALGORITHM_NOT_ALLOWED"),
        ("jwt", {"context": types.ContextSuffix(protocol="release")}, "CONTEXT_NOT_ALLOWED"),
        (
            "jwt",
            {"context": types.ContextSuffix(protocol="jwt", role="root")},
            "CONTEXT_NOT_ALLOWED",
        ),
        ("artifact", {}, "CONTEXT_NOT_ALLOWED"),
        ("webhook", {"context": types.ContextSuffix()}, "ALGORITHM_NOT_ALLOWED"),
    ],
)
def test_what_the_agent_would_not_have_sent_is_refused_here_too(app, purpose, group, reason):
    assert reason_of(app, batch(handles_of(app)[purpose], **group)) == reason


def test_intents_of_another_time(app):
    token = handles_of(app)["jwt"]
    old = signing_pb2.SignItem(intent_id=new_intent_id(1_000), input=CANARY)
    assert reason_of(app, batch(token, old)) == "INTENT_EXPIRED"
    early = signing_pb2.SignItem(intent_id=new_intent_id(2**47), input=CANARY)
    assert reason_of(app, batch(token, early)) == "INTENT_FROM_FUTURE"


def test_a_handle_is_refused_after_its_end(dev):
    """The grant's handles live for ten seconds; the adapter allows for 30 s of skew by policy, so
    its clock is what is asked.
    """
    with channel_as(dev) as channel:
        issued = capability_pb2_grpc.CapabilityServiceStub(channel).IssueHandles(
            capability_pb2.IssueHandlesRequest(grants=["orders-short"]), timeout=20
        )
    (handle,) = issued.handles
    life = handle.expires_at.ToMilliseconds() - handle.not_before.ToMilliseconds()
    assert life <= 10_000 + 60_000


# Too much.


def test_ten_thousand_handles_in_one_batch_or_one_renewal(app):
    token = handles_of(app)["jwt"]
    many = batch(token)
    many.handles.extend([b"h"] * 10_000)
    assert sign(app, many).failure.reason == reasons.REASON_INPUT_TOO_LARGE
    renew = capability_pb2_grpc.CapabilityServiceStub(app).RenewHandles
    assert (
        failure_of(renew, capability_pb2.RenewHandlesRequest(tokens=[b"h"] * 10_000)).reason
        == reasons.REASON_INPUT_TOO_LARGE
    )
    assert not handles_for(renew, [os.urandom(960) for _ in range(256)])


def handles_for(renew, tokens: list[bytes]) -> list[capability_pb2.IssuedHandle]:
    """What a renewal gives; nothing, where so many verifications are more than may be computed for
    one tenant at once.
    """
    try:
        return list(renew(capability_pb2.RenewHandlesRequest(tokens=tokens), timeout=30).handles)
    except grpc.RpcError as error:
        failure = FailureError.from_rpc(error)
        assert failure is not None
        assert failure.reason == reasons.REASON_RATE_LIMITED
        return []


def test_a_hundred_thousand_items_are_refused_in_bounded_memory(dev, app):
    """As many as a message has room for: each is two bytes on the wire and sixty in memory."""
    head = signing_pb2.SignGroup(algorithm=algorithms.ALGORITHM_ED25519).SerializeToString()
    count = 130_000
    body = head + b"\x32\x00" * count
    wire = b"\x08\x05\x12\x01h\x1a" + _varint(len(body)) + body
    assert len(signing_pb2.SignRequest.FromString(wire).groups[0].items) == count
    before = rss(dev.adapter())
    forget_peak(dev.adapter())
    call = app.stream_stream("/capsign.adapter.v1.SigningService/Sign")

    def one(_):
        (answer,) = call(iter([wire]), timeout=60)
        return signing_pb2.SignResponse.FromString(answer)

    with ThreadPoolExecutor(4) as pool:
        for told in pool.map(one, range(12)):
            assert (told.batch_id, told.failure.reason) == (5, reasons.REASON_INPUT_TOO_LARGE)
    assert rss(dev.adapter()) - before < ROOM_MIB
    assert peak(dev.adapter()) - before < 5 * ROOM_MIB  # several threads parse side by side


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_a_message_above_the_bound_and_a_compressed_bomb(dev, app):
    before = rss(dev.adapter())
    call = app.unary_unary("/capsign.adapter.v1.EvidenceService/SubmitAudit")
    for size in (ADAPTER_REQUEST_BYTES + 1, 2 * ADAPTER_REQUEST_BYTES):
        told = failure_of(call, bytes(size))
        assert told.reason == reasons.REASON_INPUT_TOO_LARGE
        assert str(ADAPTER_REQUEST_BYTES) in told.detail
    assert bare_status(call, bytes(5 * 1024 * 1024)) == grpc.StatusCode.RESOURCE_EXHAUSTED
    for _ in range(8):
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(64 * 1024 * 1024), timeout=30, compression=grpc.Compression.Gzip)
        assert caught.value.code() in {
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.INTERNAL,
        }
    assert rss(dev.adapter()) - before < ROOM_MIB


def test_a_workload_that_is_refused_without_end_does_not_fill_the_log(dev, app):
    """Refusals are evidence, and evidence is bounded: above the rate they are counted, not
    recorded.
    """
    before = len(dev.entries())
    bad = [batch(b"forged", *[item(b"m") for _ in range(1024)]) for _ in range(5)]
    answers = list(signing_pb2_grpc.SigningServiceStub(app).Sign(iter(bad), timeout=60))
    names = [
        reasons.Reason.Name(one.failure.reason)
        for answer in answers
        for one in answer.groups[0].items
    ]
    assert set(names) == {"REASON_HANDLE_FORGED", "REASON_RATE_LIMITED"}
    assert len(dev.entries()) - before < 3_000 < len(names)


# Too many, too slow.


def test_idle_and_slow_connections_leave_room(dev):
    host, port = dev.about["adapters"][0]["address"].split(":")
    before = rss(dev.adapter())
    with ExitStack() as open_ones:
        for number in range(2_000):
            one = open_ones.enter_context(socket.create_connection((host, int(port)), timeout=20))
            if number % 2:
                # half a ClientHello
                one.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[: 1 + number % 11])
        with channel_as(dev) as channel:
            assert handles_of(channel)
        assert rss(dev.adapter()) - before < 2 * ROOM_MIB


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x01"], ids=["nothing", "the start of a ClientHello"]
)
def test_who_connects_and_does_not_go_on_is_hung_up_on(dev, said):
    host, port = dev.about["adapters"][0]["address"].split(":")
    with socket.create_connection((host, int(port)), timeout=20) as one:
        one.sendall(said)
        assert not one.recv(65536)


def test_what_is_not_tls_is_hung_up_on(dev):
    host, port = dev.about["adapters"][0]["address"].split(":")
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", os.urandom(4096)):
        with (
            socket.create_connection((host, int(port)), timeout=20) as one,
            suppress(ConnectionResetError, BrokenPipeError),
        ):
            one.sendall(noise)
            while one.recv(65536):
                pass


def test_i10_tls_1_2_finds_no_way_in(dev):
    """With a certificate that is good: no suite is agreed on. That a call would be refused besides
    is tested where gRPC is left as it is (tests/adapter/front/test_identity_over_tls.py).
    """
    context = ssl.create_default_context(cafile=dev.about["ca"])
    about = dev.about["clients"]["app"]
    context.load_cert_chain(about["certificate"], about["private_key"])
    context.set_alpn_protocols(["h2"])
    host, port = dev.about["adapters"][0]["address"].split(":")

    def spoken() -> str | None:
        with (
            socket.create_connection((host, int(port)), timeout=20) as raw,
            context.wrap_socket(raw, server_hostname=dev.about["server_name"]) as connection,
        ):
            return connection.version()

    assert spoken() == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        spoken()


def test_calls_whose_request_never_comes_lose_their_place(dev):
    """Slow-loris inside HTTP/2: headers of a unary call, and then nothing. A thread waits for
    each.
    """
    with channel_as(dev, "other") as greedy, channel_as(dev) as app:
        path = "/capsign.adapter.v1.CapabilityService/IssueHandles"
        held: Any = [greedy.stream_unary(path).future(_never(), timeout=60) for _ in range(60)]
        for _ in range(20):
            assert handles_of(app)
        ended = [
            FailureError.from_rpc(call.exception()) for call in held
        ]  # long before their own deadlines
        assert {failure.row.name for failure in ended if failure} == {"OVERLOADED"}
        # those that waited were cut off
        assert len([failure for failure in ended if failure is None]) <= 8


@pytest.mark.parametrize("who", ["stranger", "other"])
def test_nobody_can_take_all_the_places(dev, who):
    """The adapter serves a bounded number of calls at once. One certificate that opens streams and
    lets them lie leaves room.
    """
    certificate, key = stranger(dev, "/ns/evil/sa/app") if who == "stranger" else (b"", b"")
    with (
        channel_as(dev, "other", certificate=certificate, key=key) as greedy,
        channel_as(dev) as app,
    ):
        held: Any = [
            greedy.stream_stream("/capsign.adapter.v1.SigningService/Sign")(_never(), timeout=60)
            for _ in range(60)
        ]
        held += [
            greedy.unary_stream("/capsign.adapter.v1.CapabilityService/Watch")(b"", timeout=60)
            for _ in range(60)
        ]
        try:
            for _ in range(20):
                assert handles_of(app)
        finally:
            for call in held:
                call.cancel()


def _never():
    threading.Event().wait(30)
    yield b""
