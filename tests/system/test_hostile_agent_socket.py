"""An application that means harm, at its own socket.

Each attack gets a typed answer in bounded memory, and the next honest call signs."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import capsign
import grpc
import pytest
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.agent.v1 import agent_pb2_grpc
from capsign_wire.bounds import MAX_MESSAGE_BYTES, taken_bytes
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2 as types
from support.hostile import (
    assert_nothing_told,
    bare_status,
    deployment,
    failure_of,
    forget_peak,
    peak,
    rss,
)
from support.signed import only_of

SERVICE = "/capsign.agent.v1.SigningService/"
UNARY = ("ListHandles", "Sign", "SignBatch", "Verify", "GetPublicKeys", "ResolveIntent")
JWT = {"purpose": "jwt", "algorithm": "ES256", "protocol": "jwt"}
CANARY = b"canary-7f3d1c-not-to-be-printed"
"""In every hostile message: it must not turn up in a log."""

ALONE = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
]
"""A channel with a connection of its own."""

ROOM_MIB = 96
"""What an attack may add to the agent's memory."""


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        yield one
        assert_nothing_told(one, CANARY)


@pytest.fixture
def channel(dev):
    with grpc.insecure_channel(f"unix:{dev.socket()}", ALONE) as one:
        yield one


@pytest.fixture
def stub(channel):
    return agent_pb2_grpc.SigningServiceStub(channel)


@pytest.fixture
def handles(stub):
    return {
        handle.purpose: handle
        for handle in stub.ListHandles(pb.ListHandlesRequest(), timeout=10).handles
    }


@pytest.fixture(autouse=True)
def _the_next_honest_call_signs(dev):
    agent, adapter = dev.agent, dev.adapter()
    yield
    with capsign.Signer(dev.socket()) as signer:
        signature = signer.sign(b"still here", **JWT)
        signer.verify(b"still here", signature, purpose="jwt", protocol="jwt")
    assert agent.is_running()
    assert adapter.is_running()


def item(message: bytes = CANARY) -> pb.SignItem:
    return pb.SignItem(intent_id=new_intent_id(), message=message)


def group(handle_id: str, *items: pb.SignItem, **extra) -> pb.SignGroup:
    extra.setdefault("algorithm", algorithms.ALGORITHM_ES256)
    extra.setdefault("context", types.ContextSuffix(protocol="jwt"))
    return pb.SignGroup(handle_id=handle_id, items=items or [item()], **extra)


def request(handle_id: str, **extra) -> pb.SignRequest:
    extra.setdefault("algorithm", algorithms.ALGORITHM_ES256)
    extra.setdefault("context", types.ContextSuffix(protocol="jwt"))
    extra.setdefault("item", item())
    return pb.SignRequest(handle_id=handle_id, **extra)


# What is no message.


@pytest.mark.parametrize("method", UNARY)
@pytest.mark.parametrize(
    "wire", [b"\xff", b"\x0a\x05ab", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 200, CANARY]
)
def test_bytes_that_are_no_message_are_malformed(channel, method, wire):
    assert (
        failure_of(channel.unary_unary(SERVICE + method), wire).reason
        == reasons.REASON_INPUT_MALFORMED
    )


def test_a_request_cut_off_at_every_byte_is_malformed_or_refused(channel, handles):
    """Some prefixes of a message are messages: they lack what is required, or name what does not
    exist.
    """
    whole = request(handles["jwt"].id).SerializeToString()
    call = channel.unary_unary(SERVICE + "Sign")
    for size in range(len(whole)):
        failure = failure_of(call, whole[:size])
        assert failure.outcome == reasons.OUTCOME_REFUSED, (size, failure)


def test_every_field_with_another_wire_type_is_malformed_or_missing(channel, handles):
    """protobuf takes a known field of another wire type for an unknown one: then the field is
    missing.
    """
    call = channel.unary_unary(SERVICE + "Sign")
    whole = request(handles["jwt"].id).SerializeToString()
    for number in range(1, 7):
        for wire_type, content in (
            (0, b"\x01"),
            (1, bytes(8)),
            (5, bytes(4)),
            (3, b""),
            (4, b""),
            (6, b""),
            (7, b""),
        ):
            failure = failure_of(call, bytes([number << 3 | wire_type]) + content)
            assert failure.reason == reasons.REASON_INPUT_MALFORMED
            if number == 6 and wire_type in {0, 1, 5}:
                continue  # a field that a later version may have
    assert channel.unary_unary(SERVICE + "Sign")(whole, timeout=10)


def test_a_stream_answers_what_is_no_call_and_goes_on(channel, handles):
    call = channel.stream_stream(SERVICE + "SignStream")
    good = pb.SignStreamRequest(call_id=7, groups=[group(handles["jwt"].id)]).SerializeToString()
    answers = [
        pb.SignStreamResponse.FromString(one)
        for one in call(iter([b"\xff", good, CANARY]), timeout=20)
    ]
    by_id = {answer.call_id: answer for answer in answers}
    assert by_id[7].groups[0].items[0].signatures
    assert [answer.failure.reason for answer in answers if answer.call_id == 0] == [
        reasons.REASON_INPUT_MALFORMED
    ] * 2


def test_methods_that_do_not_exist(channel):
    for path in (
        "/capsign.agent.v1.SigningService/Export",
        "/capsign.adapter.v1.AdminService/Revoke",
        "/",
        "//",
        "/a/" + "b" * 4000,
    ):
        assert bare_status(channel.unary_unary(path), b"") == grpc.StatusCode.UNIMPLEMENTED


# What is a message, and wrong.

BAD_FIELDS = {
    "unknown algorithm": {"algorithm": 99},
    "negative algorithm": {"algorithm": -1},
    "no algorithm": {"algorithm": 0},
    "newline in purpose": {"purpose": "jwt\n"},
    "escape in purpose": {"purpose": "\x1b[2Jjwt"},
    "nul in purpose": {"purpose": "jwt\0"},
    "right-to-left in purpose": {"purpose": "jwt\u202e"},
    "long purpose": {"purpose": "j" * 65},
    "huge purpose": {"purpose": "j" * 1_000_000},
    "newline in protocol": {"context": types.ContextSuffix(protocol="jwt\n")},
    "short transcript": {"context": types.ContextSuffix(protocol="jwt", transcript=b"t" * 31)},
    "short intent": {"item": pb.SignItem(intent_id=b"i" * 15, message=CANARY)},
    "intent that is no UUIDv7": {"item": pb.SignItem(intent_id=b"\xff" * 16, message=CANARY)},
    "no intent": {"item": pb.SignItem(message=CANARY)},
    "no input": {"item": pb.SignItem(intent_id=new_intent_id())},
    "digest of another length": {"item": pb.SignItem(intent_id=new_intent_id(), digest=b"d" * 31)},
    "message above its bound": {
        "item": pb.SignItem(intent_id=new_intent_id(), message=CANARY + bytes(65536))
    },
    "long digest": {"item": pb.SignItem(intent_id=new_intent_id(), digest=b"d" * 65)},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_field_that_breaks_its_bound_is_named(stub, handles, name):
    failure = failure_of(stub.Sign, request(handles["jwt"].id, **BAD_FIELDS[name]))
    assert failure.reason in {reasons.REASON_INPUT_MALFORMED, reasons.REASON_INPUT_TOO_LARGE}
    assert failure.field
    assert len(failure.detail) <= 512
    assert CANARY.decode() not in failure.detail


@pytest.mark.parametrize("handle_id", ["", "a b", "é", "x" * 65, "\x00", "../../etc"])
def test_a_handle_id_of_the_wrong_form(stub, handle_id):
    assert failure_of(stub.Sign, request(handle_id)).reason in {
        reasons.REASON_INPUT_MALFORMED,
        reasons.REASON_INPUT_TOO_LARGE,
    }


def test_text_that_is_not_utf8_is_malformed(channel):
    assert (
        failure_of(channel.unary_unary(SERVICE + "Sign"), b"\x0a\x02\xc3\x28").reason
        == reasons.REASON_INPUT_MALFORMED
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"purpose": "artifact"}, "PURPOSE_NOT_ALLOWED"),
        ({"algorithm": algorithms.ALGORITHM_RS256}, "ALGORITHM_NOT_ALLOWED"),
        ({"context": types.ContextSuffix(protocol="release")}, "CONTEXT_NOT_ALLOWED"),
        ({"context": types.ContextSuffix(protocol="jwt", role="verifier")}, "CONTEXT_NOT_ALLOWED"),
        (
            {"context": types.ContextSuffix(protocol="jwt", protocol_version="9")},
            "CONTEXT_NOT_ALLOWED",
        ),
        (
            {"context": types.ContextSuffix(protocol="jwt", transcript=b"t" * 32)},
            "CONTEXT_NOT_ALLOWED",
        ),
        ({"item": pb.SignItem(intent_id=new_intent_id(1_000), message=CANARY)}, "INTENT_EXPIRED"),
        (
            {"item": pb.SignItem(intent_id=new_intent_id(2**47), message=CANARY)},
            "INTENT_FROM_FUTURE",
        ),
    ],
)
def test_what_the_handle_does_not_allow(stub, handles, changed, reason):
    assert failure_of(stub.Sign, request(handles["jwt"].id, **changed)).row.name == reason


def test_a_handle_means_nothing_on_another_socket(dev, handles):
    with grpc.insecure_channel(f"unix:{dev.socket('worker')}") as other:
        stub = agent_pb2_grpc.SigningServiceStub(other)
        offered = {
            handle.id for handle in stub.ListHandles(pb.ListHandlesRequest(), timeout=10).handles
        }
        for handle in handles.values():
            assert handle.id not in offered
            assert failure_of(stub.Sign, request(handle.id)).reason == reasons.REASON_HANDLE_UNKNOWN


def test_a_replayed_intent_gives_the_same_bytes_and_another_message_none(stub, handles):
    first = request(handles["jwt"].id)
    signed = stub.Sign(first, timeout=10)
    assert only_of(stub.Sign(first, timeout=10).signed) == only_of(signed.signed)
    first.item.message = b"something else"
    assert failure_of(stub.Sign, first).reason == reasons.REASON_INTENT_CONFLICT


# Too much.


def test_ten_thousand_handles_that_do_not_exist(stub, handles):
    many = pb.SignBatchRequest(groups=[group(f"h{number}") for number in range(10_000)])
    assert failure_of(stub.SignBatch, many).reason == reasons.REASON_INPUT_TOO_LARGE
    some = pb.SignBatchRequest(
        groups=[group(f"h{number}") for number in range(63)] + [group(handles["jwt"].id)]
    )
    answer = stub.SignBatch(some, timeout=20)
    assert {one.items[0].failure.reason for one in answer.groups[:63]} == {
        reasons.REASON_HANDLE_UNKNOWN
    }
    assert answer.groups[63].items[0].signatures


def million(handle_id: str) -> bytes:
    """A batch of 1,048,576 empty items: 2 MiB on the wire."""
    head = pb.SignGroup(
        handle_id=handle_id, algorithm=algorithms.ALGORITHM_ES256
    ).SerializeToString()
    body = head + b"\x2a\x00" * (1024 * 1024)
    assert len(pb.SignGroup.FromString(body).items) == 1024 * 1024
    return b"\x0a" + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_a_million_items_are_refused_in_bounded_memory(dev, channel, handles):
    wire = million(handles["jwt"].id)
    before = rss(dev.agent)
    forget_peak(dev.agent)
    call = channel.unary_unary(SERVICE + "SignBatch")
    with ThreadPoolExecutor(8) as pool:
        for failure in pool.map(lambda _: failure_of(call, wire, timeout=60), range(24)):
            assert failure.reason == reasons.REASON_INPUT_TOO_LARGE
    assert rss(dev.agent) - before < ROOM_MIB
    # one of them in memory at a time; all of them would be fifteen times that
    assert peak(dev.agent) - before < 2 * ROOM_MIB


@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES + 1, taken_bytes(MAX_MESSAGE_BYTES)])
@pytest.mark.parametrize("method", ["Sign", "SignBatch", "Verify"])
def test_a_message_a_little_above_the_bound_is_refused_in_our_words(channel, size, method):
    """Whoever sends one byte too much hears what is wrong and what to do, as for every other bad
    input, and not gRPC's bare RESOURCE_EXHAUSTED.
    """
    told = failure_of(channel.unary_unary(SERVICE + method), bytes(size))
    assert told.reason == reasons.REASON_INPUT_TOO_LARGE
    assert str(MAX_MESSAGE_BYTES) in told.detail


def test_a_message_far_above_the_bound_never_reaches_us(dev, channel):
    before = rss(dev.agent)
    for _ in range(8):
        assert (
            bare_status(channel.unary_unary(SERVICE + "SignBatch"), bytes(5 * 1024 * 1024))
            == grpc.StatusCode.RESOURCE_EXHAUSTED
        )
    assert rss(dev.agent) - before < ROOM_MIB


def test_more_items_than_a_batch_takes_over_several_groups(stub, handles):
    groups = [group(handles["jwt"].id, *[item(b"m") for _ in range(600)]) for _ in range(2)]
    assert (
        failure_of(stub.SignBatch, pb.SignBatchRequest(groups=groups)).reason
        == reasons.REASON_INPUT_TOO_LARGE
    )


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_bomb_does_not_go_off(dev, algorithm):
    """4 MiB of zeros in 4 KiB. Told that only identity is spoken, a client's gRPC sends plain
    bytes; by hand it is refused.
    """
    before = rss(dev.agent)
    with grpc.insecure_channel(f"unix:{dev.socket()}", compression=algorithm) as channel:
        call: Any = channel.unary_unary(SERVICE + "Sign")
        for _ in range(10):
            with pytest.raises(grpc.RpcError) as caught:
                call(bytes(3 * 1024 * 1024), timeout=20)
            assert caught.value.code() in {
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.UNIMPLEMENTED,
            }
    assert rss(dev.agent) - before < ROOM_MIB


def test_metadata_above_the_bound_is_refused(dev, channel):
    """On another connection: an engine may close that one, and what is on it then is lost."""
    call = channel.unary_unary(SERVICE + "ListHandles")
    with grpc.insecure_channel(f"unix:{dev.socket()}", ALONE) as another:
        with pytest.raises(grpc.RpcError) as caught:
            another.unary_unary(SERVICE + "ListHandles")(
                b"", timeout=20, metadata=[("x-long", "m" * 200_000)]
            )
        assert caught.value.code() in {
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.INTERNAL,
        }
    for trace in ("00-" + "f" * 500, "junk", "00-" + "z" * 32 + "-" + "0" * 16 + "-01"):
        assert call(b"", timeout=20, metadata=[("traceparent", trace)])


# HTTP/2 by hand.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def connect(dev) -> socket.socket:
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.settimeout(20)
    one.connect(dev.socket())
    return one


ODDITIES = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
    "noise": os.urandom(4096),
    "a frame of 16 MiB": PREFACE
    + frame(4, 0, 0)
    + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"
    + bytes(70_000),
    "DATA on a stream that is not open": PREFACE + frame(4, 0, 0) + frame(0, 1, 1, b"hello"),
    "a header block that is no HPACK": PREFACE + frame(4, 0, 0) + frame(1, 5, 1, b"\xff" * 200),
    "settings that cannot be": PREFACE + frame(4, 0, 0, struct.pack(">HI", 5, 1)),
    "a window of zero": PREFACE + frame(4, 0, 0) + frame(8, 0, 0, bytes(4)),
}


@pytest.mark.parametrize("name", ODDITIES)
def test_what_is_not_http2_is_hung_up_on(dev, name):
    with connect(dev) as one, suppress(ConnectionResetError, BrokenPipeError):
        one.sendall(ODDITIES[name])
        one.shutdown(socket.SHUT_WR)
        while one.recv(65536):
            pass


def test_floods_of_frames_end_with_the_connection(dev):
    """Rapid reset, pings, settings and continuations without end: bounded by hanging up, or by
    doing no work for them.
    """
    before = rss(dev.agent)
    headers = bytes.fromhex("838684") + b"\x01\x01a"  # POST, http, /, an authority of one letter
    floods = {
        "reset": b"".join(
            frame(1, 4, n, headers) + frame(3, 0, n, struct.pack(">I", 8))
            for n in range(1, 20_001, 2)
        ),
        "ping": frame(6, 0, 0, bytes(8)) * 10_000,
        "settings": frame(4, 0, 0) * 10_000,
        "continuation": frame(1, 0, 1, headers) + frame(9, 0, 1, b"\x00\x01a\x01b" * 200) * 2_000,
    }
    for flood in floods.values():
        # It may hang up while we are still shouting. That it does nothing for ever is refused by
        # the timeout.
        with connect(dev) as one, suppress(ConnectionResetError, BrokenPipeError):
            one.sendall(PREFACE + frame(4, 0, 0) + flood)
            one.shutdown(socket.SHUT_WR)
            while one.recv(65536):
                pass
    assert rss(dev.agent) - before < ROOM_MIB


def test_a_compressed_message_by_hand_is_refused(dev):
    """What a gRPC library will not send: the compressed flag set, with grpc-encoding gzip, and
    three MiB inside.
    """
    bomb = gzip.compress(bytes(3 * 1024 * 1024))

    def literal(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    headers = (
        b"\x83\x86" + literal(b":path", SERVICE.encode() + b"Sign") + literal(b":authority", b"x")
    )
    headers += (
        literal(b"content-type", b"application/grpc")
        + literal(b"te", b"trailers")
        + literal(b"grpc-encoding", b"gzip")
    )
    body = b"\x01" + struct.pack(">I", len(bomb)) + bomb
    with connect(dev) as one:
        one.sendall(PREFACE + frame(4, 0, 0) + frame(1, 4, 1, headers) + frame(0, 1, 1, body))
        heard = b""
        while b"grpc-status" not in heard:
            part = one.recv(65536)
            assert part, "it hung up without a word"
            heard += part
    assert b"\x0212" in heard  # UNIMPLEMENTED: this encoding is not spoken


# Too many, too slow.


def test_two_thousand_idle_connections_and_slow_ones_leave_room_for_an_honest_caller(dev):
    before, files = rss(dev.agent), dev.agent.num_fds()
    with ExitStack() as open_ones:
        for number in range(2_000):
            one = open_ones.enter_context(connect(dev))
            if number % 4 == 1:
                one.sendall(PREFACE[:10])  # slow-loris: half a preface
            elif number % 4 == 2:
                one.sendall(
                    PREFACE + frame(4, 0, 0) + frame(1, 0, 1, b"\x83")
                )  # a header block that does not end
        with capsign.Signer(dev.socket(), timeout=30) as signer:
            assert signer.sign(b"among them", **JWT).value
        assert rss(dev.agent) - before < 2 * ROOM_MIB
    with capsign.Signer(dev.socket()) as signer:
        for _ in range(400):  # bounded: the agent sees one connection after another close
            signer.sign(b"after them", **JWT)
            if dev.agent.num_fds() < files + 50:
                break
        else:
            pytest.fail("connections that were closed are still held")


@pytest.mark.parametrize("said", [b"", PREFACE[:10]], ids=["nothing", "half a preface"])
def test_who_connects_and_does_not_go_on_is_hung_up_on(dev, said):
    with connect(dev) as one:
        one.sendall(said)
        while one.recv(65536):
            pass  # its own settings; then the end, or the timeout fails this test


def test_a_stream_that_never_reads_is_held_back(dev, channel, handles):
    """16,000 calls are written and no answer is read: flow control stops them, memory does not grow
    with them.
    """
    before, taken = rss(dev.agent), threading.Event()
    wire = pb.SignStreamRequest(
        call_id=1, groups=[group("unknown", *[item(b"m") for _ in range(64)])]
    ).SerializeToString()

    def calls():
        for number in range(16_000):
            if number == 2_000:
                taken.set()
            yield wire

    stream = channel.stream_stream(SERVICE + "SignStream")(calls(), timeout=60)
    taken.wait(5)  # it may have been stopped before
    with capsign.Signer(dev.socket(), timeout=30) as signer:
        assert signer.sign(b"meanwhile", **JWT).value
    assert rss(dev.agent) - before < ROOM_MIB
    stream.cancel()


def test_many_streams_at_once_are_all_answered(channel, handles):
    """Above the bound of streams on one connection gRPC waits. On a machine that is busy with
    other things a message may be late, and its stream be asked to come again: it hears that in our
    words.
    """
    call = channel.stream_stream(SERVICE + "SignStream")
    good = pb.SignStreamRequest(call_id=1, groups=[group(handles["jwt"].id)])
    with ThreadPoolExecutor(16) as pool:

        def one(_):
            mine = pb.SignStreamRequest()
            mine.CopyFrom(good)
            mine.groups[0].items[0].intent_id = new_intent_id()
            while True:
                try:
                    (answer,) = call(iter([mine.SerializeToString()]), timeout=60)
                except grpc.RpcError as error:
                    told = FailureError.from_rpc(error)
                    if told is None or told.reason != reasons.REASON_OVERLOADED:
                        raise
                else:
                    told_of = pb.SignStreamResponse.FromString(answer).groups[0].items[0]
                    return bool(told_of.signatures)

        assert all(pool.map(one, range(300)))


# The socket itself.


def second_agent(dev, tmp_path, *changes: tuple[str, str]) -> subprocess.CompletedProcess:
    text = Path(dev.about["agent"]["config"]).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    config = tmp_path / "second.toml"
    config.write_text(text)
    command = [sys.executable, "-m", "capsign_agent", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done


def test_a_second_agent_cannot_take_the_socket(dev, tmp_path):
    before = os.lstat(dev.socket()).st_ino
    done = second_agent(dev, tmp_path)
    assert "Another agent" in done.stderr
    assert os.lstat(dev.socket()).st_ino == before


def test_a_link_in_the_place_of_a_socket_is_refused(dev, short_dir, tmp_path):
    place = short_dir / "s"
    place.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (place / "agent.sock").symlink_to(victim)
    done = second_agent(dev, tmp_path, (dev.socket(), str(place / "agent.sock")))
    assert "not a socket" in done.stderr
    assert victim.read_text() == "mine"
    done = second_agent(
        dev, tmp_path, (str(Path(dev.socket()).parent), str(_link(short_dir / "d", place)))
    )
    assert "directory" in done.stderr


def _link(path: Path, to: Path) -> Path:
    path.symlink_to(to)
    return path
