"""The webhook over real TLS on a real socket: what is refused, and how soon; what a certificate's
replacement does to callers.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from capsign_injector.certificate.tls import ServingTls
from capsign_injector.review import MAX_REVIEW_BYTES
from capsign_injector.serve.connections import Connections
from capsign_injector.serve.metrics import Metrics
from capsign_injector.serve.patience import USUAL, Patience
from capsign_injector.serve.webhook import NotAReviewError, NoTrustBundleError, Webhook
from support import injector_rig as rig

HEAD = "POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


class Answer:
    """What the pure review gives; here it repeats the body."""

    outcome = "unchanged"

    def __init__(self, body: bytes) -> None:
        self.body = body


class Rig:
    """A webhook whose review can be held up."""

    def __init__(
        self, patience: Patience = USUAL, certificate: bool = True, **settings: object
    ) -> None:
        self.metrics = Metrics()
        self.tls = ServingTls()
        self.authority, self.leaf = rig.authority_and_leaf(int(time.time()), "localhost")
        if certificate:
            self.tls.load(self.leaf)
        self.settings = rig.server(**settings)
        self.raises: Exception | None = None
        self.entered = 0
        self.webhook = Webhook(self.settings, self.review, MAX_REVIEW_BYTES, self.metrics, patience)
        self.listener = Connections(
            self.webhook.handle,
            most=self.settings.max_connections,
            broken=self.broken,
            patience=patience,
        )

    def broken(self) -> None:
        self.metrics.broken_connections += 1

    def review(self, body: bytes) -> Answer:
        self.entered += 1
        if self.raises is not None:
            raise self.raises
        return Answer(body)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.listener.port}/inject"

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        trust = rig.trusting(self.authority.certificate)
        return await asyncio.open_connection(
            "localhost", self.listener.port, ssl=trust, server_hostname="localhost"
        )

    async def exchange(self, data: bytes) -> bytes:
        """Everything that comes back until the connection ends."""
        reader, writer = await self.raw()
        writer.write(data)
        answer = await reader.read()
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
        return answer


@asynccontextmanager
async def serving(patience: Patience = USUAL, certificate: bool = True, **settings: object):
    made = Rig(patience, certificate, **settings)
    made.listener.listen("127.0.0.1", 0, made.tls.context)
    try:
        yield made
    finally:
        await made.listener.drain(0.0)
        made.webhook.close()


@asynccontextmanager
async def caller(made: Rig, **options: object):
    connector = aiohttp.TCPConnector(
        ssl=rig.trusting(made.authority.certificate), limit=0, **options
    )
    async with aiohttp.ClientSession(
        connector=connector, headers={"Content-Type": "application/json"}
    ) as session:
        yield session


async def test_a_review_is_answered_and_the_connection_kept():
    async with serving() as made, caller(made) as session:
        for _ in range(3):
            async with session.post(made.url, data=b'{"a":1}') as answer:
                assert (answer.status, await answer.read(), answer.content_type) == (
                    200,
                    b'{"a":1}',
                    "application/json",
                )
        assert made.listener.count == 1
        assert made.metrics.requests["unchanged"] == 3


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /inject HTTP/1.1\r\nHost: x\r\n", 405),
        ("POST / HTTP/1.1\r\nHost: x\r\n", 404),
        (
            "POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n",
            415,
        ),
        ("POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n", 415),
        (f"{HEAD}Content-Encoding: gzip\r\nContent-Length: 2\r\n", 415),
        (f"{HEAD}Expect: 100-continue\r\nContent-Length: 2\r\n", 417),
        (f"{HEAD}Transfer-Encoding: chunked\r\n", 411),
        (f"{HEAD}Content-Length: {MAX_REVIEW_BYTES + 1}\r\n", 413),
        (f"{HEAD}Content-Length: {10 << 20}\r\n", 413),
    ],
    ids=[
        "method",
        "path",
        "content type",
        "no content type",
        "compressed",
        "expect",
        "chunked",
        "too large",
        "10 MiB",
    ],
)
async def test_what_is_no_review_is_refused_before_its_body_is_read(head, status):
    async with serving(Patience(linger_s=0.05)) as made:
        answer = await made.exchange(f"{head}\r\n".encode())
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"Connection: close" in answer
        assert made.entered == 0
        assert made.webhook.bytes == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        b"POST /inject HTTP/9.9\r\n\r\n",
        b"POST /inject\r\n\r\n",
        f"{HEAD}Content-Length: -1\r\n\r\n".encode(),
        f"{HEAD}Content-Length: 1\r\nContent-Length: 2\r\n\r\n".encode(),
        f"{HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(),
        f"{HEAD}bad header: x\r\n\r\n".encode(),
        f"{HEAD}X: {'a' * 70_000}\r\n\r\n".encode(),
        (HEAD + "".join(f"X-{n}: a\r\n" for n in range(100)) + "\r\n").encode(),
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=[
        "bytes",
        "version",
        "no version",
        "negative",
        "two lengths",
        "length and chunks",
        "name",
        "long",
        "many",
        "long line",
    ],
)
async def test_a_malformed_head_is_answered_with_a_fixed_sentence(data, capsys):
    async with serving() as made:
        answer = await made.exchange(data)
        assert answer.startswith(b"HTTP/")
        assert int(answer.split(b" ")[1]) in {400, 415}
        assert b"aaaa" not in answer
        assert made.entered == 0
    assert "aaaa" not in capsys.readouterr().err


async def test_an_unread_10_mib_body_does_not_keep_the_answer_away():
    async with serving() as made, caller(made) as session:
        with suppress(aiohttp.ClientError):
            async with session.post(made.url, data=b"x" * (10 << 20)) as answer:
                assert answer.status == 413
        assert made.metrics.requests["too_large"] == 1
        assert made.entered == 0


async def test_a_head_that_dribbles_ends():
    async with serving(Patience(head_s=0.05)) as made:
        assert await made.exchange(HEAD.encode()) == b""
        assert made.metrics.broken_connections == 1
        # The same on a connection that was good once: a kept-alive one earns no more patience.
        reader, writer = await made.raw()
        writer.write(f"{HEAD}Content-Length: 2\r\n\r\n{{}}".encode())
        assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"POST /inj")
        assert await reader.read() == b""
        writer.close()


async def test_a_body_that_dribbles_is_answered():
    async with serving(Patience(body_s=0.05, linger_s=0.05)) as made:
        answer = await made.exchange(f"{HEAD}Content-Length: 20\r\n\r\n{{".encode())
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert (made.webhook.reviews, made.webhook.bytes) == (0, 0)
        assert made.metrics.requests["slow"] == 1


async def test_a_handshake_that_does_not_come_ends():
    async with serving(Patience(handshake_s=0.05)) as made:
        reader, writer = await asyncio.open_connection("localhost", made.listener.port)
        assert await reader.read() == b""
        writer.close()
        assert made.metrics.broken_connections == 1


async def test_over_the_bound_the_api_server_is_told_to_come_again():
    async with serving(max_reviews=1) as made, caller(made) as session:
        reader, writer = await made.raw()
        writer.write(f"{HEAD}Content-Length: 2\r\n\r\n".encode())  # in work until its body comes
        while made.webhook.reviews == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        async with session.post(made.url, data=b"{}") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        writer.write(b"{}")
        assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        async with session.post(made.url, data=b"{}") as answer:
            assert answer.status == 200


async def test_bodies_are_bounded_together_before_any_is_read():
    async with serving(max_review_bytes=8 << 20) as made, caller(made) as session:
        _, writer = await made.raw()
        writer.write(f"{HEAD}Content-Length: {5 << 20}\r\n\r\n".encode())
        while made.webhook.bytes == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        async with session.post(made.url, data=b"x" * (4 << 20)) as answer:
            assert answer.status == 503
        async with session.post(made.url, data=b"{}") as answer:
            assert answer.status == 200
        writer.close()


async def test_a_new_connection_has_room_because_the_idlest_goes():
    async with serving(max_connections=16) as made:
        idle = [await made.raw() for _ in range(16)]
        busy = idle[0][1]
        busy.write(f"{HEAD}Content-Length: 2\r\n\r\n".encode())
        while made.webhook.reviews == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        async with caller(made) as session, session.post(made.url, data=b"{}") as answer:
            assert answer.status == 200
        with suppress(ConnectionError):
            assert await idle[1][0].read() == b"", "the one that was idle longest is gone"
        busy.write(b"{}")
        assert (await idle[0][0].readuntil(b"{}")).startswith(b"HTTP/1.1 200 "), (
            "the one in work is not"
        )
        for _, writer in idle:
            writer.close()


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (NotAReviewError("The body is not JSON."), 400, "malformed"),
        (NoTrustBundleError("The trust bundle is missing."), 500, "no_trust_bundle"),
        (RuntimeError("quotes do-not-log-me"), 500, "failed"),
    ],
)
async def test_what_a_review_raises_is_told_apart_and_never_quoted(error, status, outcome, capsys):
    async with serving() as made, caller(made) as session:
        made.raises = error
        async with session.post(made.url, data=rig.review()) as answer:
            text = await answer.text()
        assert answer.status == status
        assert made.metrics.requests[outcome] == 1
        assert "do-not-log-me" not in text
    lines = capsys.readouterr().err.splitlines()
    assert any(json.loads(line)["event"] == "review.answered" for line in lines)
    assert "do-not-log-me" not in "".join(lines)


async def test_without_a_certificate_no_handshake_succeeds():
    async with serving(certificate=False) as made:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await made.raw()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_versions(version):
    async with serving() as made:
        trust = rig.trusting(made.authority.certificate)
        trust.minimum_version = trust.maximum_version = version
        trust.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection("localhost", made.listener.port, ssl=trust)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()


async def test_older_tls_is_refused():
    async with serving() as made:
        old = rig.trusting(made.authority.certificate)
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("localhost", made.listener.port, ssl=old)


async def test_certificates_are_replaced_under_continuous_requests():
    """Half of the callers keep their connections, half make one for each request. None ever fails,
    and all end on the last.
    """
    async with serving() as made:
        generations = [rig.authority_and_leaf(int(time.time()), "localhost") for _ in range(8)]
        bundles = [
            made.authority.certificate,
            *(authority.certificate for authority, _ in generations),
        ]
        trust, done = rig.trusting(*bundles), asyncio.Event()
        answered = [0] * 8

        async def call(number: int) -> None:
            connector = aiohttp.TCPConnector(ssl=trust, force_close=number % 2 == 0)
            async with aiohttp.ClientSession(
                connector=connector, headers={"Content-Type": "application/json"}
            ) as session:
                while not done.is_set():
                    async with session.post(made.url, data=b"{}") as answer:
                        assert (answer.status, await answer.read()) == (200, b"{}")
                    answered[number] += 1

        callers = [asyncio.create_task(call(number)) for number in range(8)]
        for _, leaf in generations:
            seen = list(answered)
            made.tls.load(leaf)
            while not all(now > before + 1 for now, before in zip(answered, seen, strict=True)):
                await asyncio.sleep(0.005)
                assert not any(one.done() for one in callers)
        done.set()
        await asyncio.gather(*callers)
        last = rig.trusting(generations[-1][0].certificate)
        _, writer = await asyncio.open_connection("localhost", made.listener.port, ssl=last)
        writer.close()
        assert made.metrics.broken_connections == 0


async def test_a_drain_answers_what_is_on_its_way_and_then_listens_no_more():
    """One request is in work, one connection is made and silent yet, one waits in the kernel's
    queue: all three are answered.
    """
    async with serving(Patience(last_words_s=0.3)) as made:
        working, writer = await made.raw()
        writer.write(f"{HEAD}Content-Length: 2\r\n\r\n".encode())
        while made.webhook.reviews == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        silent, silent_writer = await made.raw()
        port = made.listener.port
        queued = socket.create_connection(("127.0.0.1", port))
        draining = asyncio.create_task(made.listener.drain(5.0))
        trust = rig.trusting(made.authority.certificate)
        last, last_writer = await asyncio.open_connection(
            sock=queued, ssl=trust, server_hostname="localhost"
        )
        for one in (writer, silent_writer, last_writer):
            one.write(b"{}" if one is writer else f"{HEAD}Content-Length: 2\r\n\r\n{{}}".encode())
        for reader in (working, silent, last):
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"Connection: close" in answer
        assert await draining is True
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        for one in (writer, silent_writer, last_writer):
            one.close()


async def test_a_drain_ends_when_its_time_is_over():
    async with serving(Patience(last_words_s=0.01)) as made:
        _, writer = await made.raw()
        writer.write(f"{HEAD}Content-Length: 2\r\n\r\n".encode())
        while made.webhook.reviews == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert await made.listener.drain(0.05) is False
        writer.close()


@pytest.mark.parametrize(
    ("host", "family"), [(None, "::"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")]
)
@pytest.mark.parametrize("version_6", [True, False])
async def test_it_listens_where_it_is_told(host, family, version_6, monkeypatch):
    """`:8443` is every address. On a node whose kernel has no IPv6 that is every address of version
    4.
    """
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: version_6)
    made = Rig()
    made.listener.listen(host, 0, None)
    every_address = "0.0.0.0"  # noqa: S104 - that is what is asked for
    assert made.listener.address[0] == (every_address if host is None and not version_6 else family)
    await made.listener.drain(0.0)
