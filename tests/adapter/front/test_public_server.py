"""The listener for verifiers, over real TLS: what stock clients make of it, and its bounds."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from functools import partial

import capsign
import jwt
import pytest
from capsign_adapter.config import Listen
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front.public_answers import Answer, Question
from capsign_adapter.front.public_routes import Routes
from capsign_adapter.front.public_server import (
    AT_ONCE,
    HANDSHAKES_AT_ONCE,
    MADE_AT_ONCE,
    OF_ONE_ADDRESS,
    PublicServer,
)
from capsign_adapter.front.public_tls import Pair
from capsign_wire import addresses
from capsign_wire.adapter.v1 import capability_pb2, capability_pb2_grpc, signing_pb2_grpc
from capsign_wire.adapter.v1 import signing_pb2 as wire
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2
from support.adapter_rig import APP, OPERATOR, STRANGER, AdapterRig
from support.ca import Authority
from support.key_calls import People
from support.replica import RunningReplica
from support.signed import only

PLACE = "/v1/jwks/demo/orders-jwt?role=issuer"


@dataclass
class Said:
    """What the listener answered."""

    status: int
    headers: Message
    body: bytes


class Verifier:
    """An HTTP client that believes the deployment's CA."""

    def __init__(self, port: int, authority: bytes) -> None:
        self.port = port
        self.url = f"https://localhost:{self.port}"
        self.tls = ssl.create_default_context(cadata=authority.decode())

        self.open = partial(urllib.request.urlopen, context=self.tls, timeout=10)

    def ask(self, path: str = PLACE, method: str = "GET", **headers: str) -> Said:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(  # noqa: S310 - https
            self.url + path, method=method, headers=named
        )
        try:
            with self.open(request) as answer:
                return Said(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Said(error.code, error.headers, error.read())

    def states(self) -> dict[int, str]:
        keys = json.loads(self.ask().body)["keys"]
        return {key["capsign_version"]: key["capsign_state"] for key in keys}


@pytest.fixture
def replica(tmp_path):
    listen = Listen(address="127.0.0.1:0", public_address="127.0.0.1:0", streams=16)
    running = RunningReplica(tmp_path, AdapterRig(tmp_path / "store"), listen=listen)
    yield running
    running.stop()


@pytest.fixture
def verifier(replica):
    return Verifier(replica.replica.public_port, replica.authority.certificate)


def signed(replica: RunningReplica, message: bytes) -> bytes:
    """A signature of the application's, as its agent asks for it."""
    with replica.as_(APP) as channel:
        stub = capability_pb2_grpc.CapabilityServiceStub(channel)
        issued = stub.IssueHandles(capability_pb2.IssueHandlesRequest(), timeout=10).handles
        token = next(each.token for each in issued if each.grant == "orders-jwt")
        group = wire.SignGroup(
            algorithm=algorithms_pb2.ALGORITHM_ED25519,
            context=signing_pb2.ContextSuffix(role="issuer"),
            items=[wire.SignItem(intent_id=new_intent_id(), input=message)],
        )
        request = wire.SignRequest(batch_id=1, handles=[token], groups=[group])
        (answer,) = signing_pb2_grpc.SigningServiceStub(channel).Sign(iter([request]), timeout=10)
        return only(answer.groups[0].items[0])


def token_of(replica: RunningReplica, kid: str) -> str:
    """A JWT (RFC 7519) that the application signs."""
    parts = ({"alg": "EdDSA", "kid": kid}, {"sub": "order-7"})
    head = b".".join(jwt.utils.base64url_encode(json.dumps(part).encode()) for part in parts)
    return (head + b"." + jwt.utils.base64url_encode(signed(replica, head))).decode()


def test_a_stock_pyjwt_client_verifies(replica, verifier):
    """Also under a version that it knew of before the first signature under it."""
    client = jwt.PyJWKClient(verifier.url + PLACE, ssl_context=verifier.tls)
    with replica.as_(OPERATOR) as channel:
        operator = People(channel)
        operator.make()
        assert verifier.states() == {1: "active"}
        operator.move("publish", 2)
        assert verifier.states() == {1: "active", 2: "pre-activation"}
        known = {key.key_id for key in client.get_signing_keys()}
        operator.move("activate", 2)
    keys = json.loads(verifier.ask().body)["keys"]
    kid = next(key["kid"] for key in keys if (key["alg"], key["capsign_version"]) == ("EdDSA", 2))
    assert kid in known
    token = token_of(replica, kid)
    key = client.get_signing_key_from_jwt(token)
    assert jwt.decode(token, key, algorithms=["EdDSA"]) == {"sub": "order-7"}
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token[:-8] + "AAAAAAAA", key, algorithms=["EdDSA"])


def test_our_own_verifier_verifies(replica, verifier):
    mine = capsign.Verifier(verifier.url + PLACE, algorithms=["EdDSA"], tls=verifier.tls)
    kid = next(
        key["kid"] for key in json.loads(verifier.ask().body)["keys"] if key["alg"] == "EdDSA"
    )
    found = mine.verify_jws(token_of(replica, kid))
    assert (json.loads(found.payload), found.key.state) == ({"sub": "order-7"}, "active")
    with pytest.raises(capsign.InvalidSignature):
        mine.verify(b"another", signed(replica, b"message"), kid=kid)


def test_a_set_may_be_kept_for_a_minute_and_is_not_sent_twice(replica, verifier):
    first = verifier.ask()
    assert (first.status, first.headers["Content-Type"]) == (200, "application/jwk-set+json")
    assert first.headers["Cache-Control"] == "public, max-age=60"
    again = verifier.ask(If_None_Match=f'"other", {first.headers["ETag"]}')
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    head = verifier.ask(method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(first.body)
    with replica.as_(OPERATOR) as channel:
        People(channel).move("suspend", 1)
    after = verifier.ask(If_None_Match=first.headers["ETag"])
    before, now = json.loads(first.body), json.loads(after.body)
    assert (after.status, now["keys"]) == (200, [])
    assert now["capsign_sequence"] > before["capsign_sequence"]


@pytest.mark.parametrize(
    ("path", "status", "title"),
    [
        ("/v1/jwks/demo/nobodys", 404, "NOT_FOUND"),
        ("/v1/jwks/other/orders-jwt?role=issuer", 404, "NOT_FOUND"),
        ("/", 404, "NOT_FOUND"),
        ("/v1/jwks/demo/orders-jwt", 400, "CONTEXT_NOT_ALLOWED"),
        (PLACE + "&transcript=00", 400, "INPUT_MALFORMED"),
        ("/v1/jwks/demo/orders-jwt?role=" + "x" * 65, 400, "INPUT_MALFORMED"),
    ],
)
def test_what_is_not_asked_well_is_refused_in_words(verifier, path, status, title):
    said = verifier.ask(path)
    assert said.headers["Content-Type"] == "application/problem+json"
    problem = json.loads(said.body)
    assert (said.status, problem["status"], problem["title"]) == (status, status, title)
    assert problem["detail"].endswith(".")


def test_nothing_can_be_changed(verifier):
    assert verifier.ask(method="POST").status == 405
    assert verifier.ask(method="DELETE").headers["Allow"] == "GET, HEAD"


def test_answers_are_counted_by_what_they_are(replica, verifier):
    tag = verifier.ask().headers["ETag"]
    verifier.ask(If_None_Match=tag)
    verifier.ask("/")
    verifier.ask(method="POST")
    counted = replica.metrics.snapshot()["capsign.public.answers"]
    assert {key: value for key, value in counted.items() if value} == {
        ("set",): 1,
        ("not_modified",): 1,
        ("refused",): 2,
    }
    assert replica.replica.listeners.public.fault() == ""


def test_one_address_has_so_many_connections_and_no_more(verifier):
    """Those that say nothing hold their places; the next one is closed without a word."""
    held = [socket.create_connection(("127.0.0.1", verifier.port)) for _ in range(OF_ONE_ADDRESS)]
    try:
        with socket.create_connection(("127.0.0.1", verifier.port), timeout=10) as further:
            assert further.recv(1) == b""
    finally:
        for each in held:
            each.close()


def test_who_asks_too_often_is_told_when_to_come_again(verifier):
    said = [verifier.ask("/v1/jwks/demo/nobodys") for _ in range(5)]
    assert {each.status for each in said} == {404}
    with (
        socket.create_connection(("127.0.0.1", verifier.port), timeout=20) as plain,
        verifier.tls.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * (2 * AT_ONCE))
        read = b""
        while b" 429 " not in read:
            read += tls.recv(65_536)


class Asked(Routes):
    """Has nothing in memory, and makes what is asked for."""

    def __init__(self) -> None:
        self.made_for: list[str] = []

    def known(self, question: Question) -> Answer | None:
        return None

    def made(self, question: Question) -> Answer:
        self.made_for.append(question.path)
        return Answer(200, b"{}")


class Stopped(Buckets):
    """Rates by a clock that stands still, and word of the first refusal."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.refused = threading.Event()
        super().__init__(lambda: self.now_ms)

    def take(self, *arguments, **named):
        taken = super().take(*arguments, **named)
        if not taken.granted:
            self.refused.set()
        return taken


@pytest.fixture
def stopped():
    """A listener by itself, where time does not pass: its rates, its routes, and a client."""
    authority, rates, routes = Authority(), Stopped(), Asked()
    server = authority.issue("spiffe://capsign.test/adapter", dns=("localhost",))
    pair = Pair(server.certificate, server.private_key)
    listener = PublicServer(addresses.listener("127.0.0.1:0"), lambda: pair, routes, rates)
    listener.start()
    yield rates, routes, Verifier(listener.port, authority.certificate)
    listener.stop()


def test_sets_that_are_not_in_memory_are_made_at_a_bounded_rate(stopped):
    _, routes, verifier = stopped
    said = [verifier.ask(f"/{number}").status for number in range(MADE_AT_ONCE + 3)]
    assert said == [200] * MADE_AT_ONCE + [429] * 3
    assert len(routes.made_for) == MADE_AT_ONCE


def test_handshakes_above_the_rate_wait_in_the_kernel(stopped):
    rates, _, verifier = stopped
    for _ in range(HANDSHAKES_AT_ONCE):
        with socket.create_connection(("127.0.0.1", verifier.port), timeout=20) as one:
            one.shutdown(socket.SHUT_WR)
            assert one.recv(1) == b""
    with ThreadPoolExecutor(1) as thread:
        waits = thread.submit(verifier.ask)
        assert rates.refused.wait(30)
        assert not waits.done()
        rates.now_ms += 1000
        assert waits.result().status == 200


def test_tls_below_1_3_is_refused(verifier):
    verifier.tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(urllib.error.URLError):
        verifier.ask()


def test_it_is_off_unless_it_is_asked_for(tmp_path):
    running = RunningReplica(tmp_path, AdapterRig(tmp_path / "store"))
    assert running.replica.public_port == 0
    running.stop()


def test_who_fetches_is_counted_an_agent_by_its_identity_and_the_others_together(replica, verifier):
    tag = verifier.ask().headers["ETag"]
    assert verifier.ask(If_None_Match=tag).status == 304
    verifier.ask(method="HEAD")
    with replica.as_(APP) as channel:
        issue = capability_pb2.IssueHandlesRequest()
        issued = capability_pb2_grpc.CapabilityServiceStub(channel).IssueHandles(issue, timeout=10)
        request = wire.GetPublicKeysRequest(
            handle=next(each.token for each in issued.handles if each.grant == "orders-jwt"),
            algorithm=algorithms_pb2.ALGORITHM_ED25519,
            context=signing_pb2.ContextSuffix(role="issuer"),
        )
        (key,) = signing_pb2_grpc.SigningServiceStub(channel).GetPublicKeys(request).keys
    assert 0 < key.visible_since.ToMilliseconds() <= key.activated_at.ToMilliseconds()
    state = replica.replica.state
    state.key_readers.flush()
    seen = {
        (each.grant, each.workload): each.version
        for each in state.store.key_readers("demo", "orders")
    }
    assert seen == {("orders-jwt", ""): 1, ("orders-jwt", APP): 1}


def test_who_shows_a_certificate_is_told_apart(replica):
    state = replica.replica.state
    routes = Routes(state.key_sets, state.key_readers)
    for who in (OPERATOR, STRANGER):
        asked = Question(
            "/v1/jwks/demo/orders-jwt", {"role": "issuer"}, peer=Peer(who, bytes(32), 0)
        )
        assert routes.made(asked).status == 200
    state.key_readers.flush()
    seen = {each.workload for each in state.store.key_readers("demo", "orders")}
    assert seen == {f"https:{OPERATOR}", ""}
