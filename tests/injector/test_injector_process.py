"""The injector as a process: it starts, says why it is not ready, answers a thousand at once, and
ends without losing one.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest
import yaml
from capsign_injector import server_settings
from capsign_injector.certificate import certificates
from capsign_injector.certificate.cluster import ROTATE_ANNOTATION
from support import injector_rig as rig
from support.ca import Authority
from support.fake_kube_objects import FakeKube, running

pytestmark = pytest.mark.system

LABELLED = {"capsign.dev/inject": "true"}


class Process:
    """A running injector."""

    def __init__(
        self, process: asyncio.subprocess.Process, port: int, health: int, log: Path
    ) -> None:
        self.process = process
        self.url = f"https://localhost:{port}/inject"
        self.health = f"http://127.0.0.1:{health}"
        self.log = log

    async def ready(self, session: aiohttp.ClientSession) -> tuple[int, str]:
        async with session.get(f"{self.health}/readyz") as answer:
            return answer.status, await answer.text()

    async def until_ready(self, session: aiohttp.ClientSession) -> None:
        while (await self.ready(session))[0] != 200:  # noqa: ASYNC110 - a probe is how anybody learns it
            await asyncio.sleep(0.02)


@asynccontextmanager
async def injector(directory: Path, name: str, **server: object):
    settings = {
        "bundle_file": str(directory / "bundle.pem"),
        "server": {
            "listen": "127.0.0.1:0",
            "health": "127.0.0.1:0",
            "drain_delay_s": 1,
            "further_names": ["localhost"],
            "confirm_bundle": False,
            **server,
        },
    }
    path, log = directory / f"{name}.yaml", directory / f"{name}.log"
    path.write_text(yaml.safe_dump(settings))
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "capsign_injector", "--settings", str(path), stderr=errors
        )
    try:
        while not log.read_bytes().endswith(b"\n"):
            assert process.returncode is None, log.read_text()
            await asyncio.sleep(0.02)
        started = json.loads(log.read_text().splitlines()[0])
        yield Process(process, started["port"], started["health_port"], log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def mounted(tmp_path):
    """Certificate files and a trust bundle; gives the settings and what API servers trust."""
    authority, leaf = rig.authority_and_leaf(int(time.time()), "localhost")
    (tmp_path / "bundle.pem").write_bytes(Authority().certificate)
    return rig.write(tmp_path, leaf), authority.certificate


def caller(*bundles: bytes, **options: object) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=rig.trusting(*bundles), limit=0, **options)
    return aiohttp.ClientSession(connector=connector, headers={"Content-Type": "application/json"})


async def connected(url: str, trusted: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("localhost", urlsplit(url).port, ssl=rig.trusting(trusted))


async def answered(
    over: tuple[asyncio.StreamReader, asyncio.StreamWriter], number: int
) -> dict[str, object]:
    """The response to one review, sent over a connection that is open."""
    reader, writer = over
    body = rig.review(LABELLED, uid=f"u-{number}")
    head = "POST /inject HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    told = await reader.readuntil(b"\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 200 "), told
    length = re.search(rb"(?i)content-length: (\d+)", told)
    assert length is not None
    response: dict[str, object] = json.loads(await reader.readexactly(int(length[1])))["response"]
    return response


async def test_a_thousand_reviews_at_once_are_all_answered(tmp_path, mounted):
    """Over a thousand connections, opened some at a time: a handshake has five seconds, and one
    client on a busy machine is slower than that with a thousand of its own at once.
    """
    files, trusted = mounted
    async with injector(tmp_path, "one", **files) as one, caller(trusted) as session:
        await one.until_ready(session)
        before = psutil.Process(one.process.pid).memory_info().rss
        connections = []
        for _ in range(0, 1_000, 50):
            some = (connected(one.url, trusted) for _ in range(50))
            connections += await asyncio.gather(*some)
        answers = await asyncio.gather(
            *(answered(over, number) for number, over in enumerate(connections))
        )
        assert [answer["uid"] for answer in answers] == [f"u-{number}" for number in range(1_000)]
        assert all(answer["allowed"] and answer["patchType"] == "JSONPatch" for answer in answers)
        grown = psutil.Process(one.process.pid).memory_info().rss - before
        assert grown < 128 << 20, f"{grown >> 20} MiB"
        async with session.get(f"{one.health}/metrics") as answer:
            assert 'capsign_injector_requests_total{outcome="injected"} 1000' in await answer.text()
        assert (await one.ready(session))[0] == 200
        for _, writer in connections:
            writer.close()
    assert "do-not-log-me" not in one.log.read_text()


async def test_two_replicas_drain_in_turn_and_no_request_fails(tmp_path, mounted):
    """The callers are what kube-proxy makes of API servers: new connections go where readiness is,
    kept ones stay.
    """
    files, trusted = mounted
    async with (
        injector(tmp_path, "first", **files) as first,
        injector(tmp_path, "second", **files) as second,
    ):
        probe = aiohttp.ClientSession()
        ready: list[Any]
        replicas, ready, done = [first, second], [], asyncio.Event()

        async def watch() -> None:
            while not done.is_set():
                seen = []
                for replica in replicas:
                    if replica.process.returncode is None and not (
                        replica is first and ended.is_set()
                    ):
                        seen += [replica] if (await replica.ready(probe))[0] == 200 else []
                ready[:] = seen
                await asyncio.sleep(0.02)

        answered = 0

        async def call(number: int) -> None:
            nonlocal answered
            async with caller(trusted) as session:
                while not done.is_set():
                    target = ready[number % len(ready)]
                    async with session.post(target.url, data=rig.review(LABELLED)) as answer:
                        assert answer.status == 200
                    answered += 1

        ended = asyncio.Event()
        for replica in replicas:
            await replica.until_ready(probe)
        watcher = asyncio.create_task(watch())
        while len(ready) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        callers = [asyncio.create_task(call(number)) for number in range(8)]
        while answered < 100:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        first.process.send_signal(signal.SIGTERM)
        while first in ready:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        ended.set()
        assert await first.process.wait() == 0
        seen = answered
        while answered < seen + 100:
            await asyncio.sleep(0.01)
            assert not any(one.done() for one in callers)
        done.set()
        await asyncio.gather(*callers, watcher)
        await probe.close()
        assert json.loads(first.log.read_text().splitlines()[-1])["in_time"] is True


async def test_own_certificates_rotate_under_continuous_requests(tmp_path):
    """Two replicas and an API server whose webhook clients trust what was published last: no
    request fails.
    """
    (tmp_path / "bundle.pem").write_bytes(Authority().certificate)
    timing = {"propagation_s": 4, "look_s": 1, "leaf_life_s": 60, "authority_life_s": 120}
    kube = FakeKube(server_settings.Server(), time.time)
    async with running(kube, tmp_path) as access:
        own = {**access, **timing}
        async with (
            injector(tmp_path, "first", **own) as first,
            injector(tmp_path, "second", **own) as second,
        ):
            async with aiohttp.ClientSession() as probe:
                await first.until_ready(probe)
                await second.until_ready(probe)
            before, done, answered = kube.data()["ca.crt"], asyncio.Event(), 0

            async def call(replica: Process) -> None:
                nonlocal answered
                while not done.is_set():
                    async with (
                        caller(kube.bundles()[0]) as session,
                        session.post(replica.url, data=rig.review()) as answer,
                    ):
                        assert answer.status == 200
                    answered += 1

            callers = [asyncio.create_task(call(replica)) for replica in (first, second)]
            kube.edit(
                "secrets",
                lambda secret: secret["metadata"].update(annotations={ROTATE_ANNOTATION: "now"}),
            )
            while (
                kube.data()["ca.crt"] == before
                or "previous-ca.crt" in kube.data()
                or len(kube.history[-1][1]) != 1
            ):
                await asyncio.sleep(0.05)
                assert not any(one.done() for one in callers)
            done.set()
            await asyncio.gather(*callers)
            assert answered > 50
            assert certificates.read(kube.data()["ca.crt"]).der in kube.history[-1][1]
    assert not kube.refused


async def test_it_says_why_it_is_not_ready_and_becomes_so(tmp_path):
    """Nothing is mounted at first. Each file that appears, as the kubelet makes it appear, takes
    one sentence away.
    """
    authority, leaf = rig.authority_and_leaf(int(time.time()), "localhost")
    files = {
        "certificate": "files",
        "cert_file": str(tmp_path / "tls.crt"),
        "key_file": str(tmp_path / "tls.key"),
    }
    async with injector(tmp_path, "one", **files) as one, caller(authority.certificate) as session:
        status, text = await one.ready(session)
        assert status == 503
        assert "There is no serving certificate" in text
        assert "bundle.pem cannot be read (no such file or directory)" in text
        rig.write(tmp_path, leaf)
        status, text = await one.ready(session)
        assert "serving certificate" not in text
        async with session.post(one.url, data=rig.review(LABELLED)) as answer:
            assert answer.status == 500
            assert "bundle.pem cannot be read" in await answer.text()
        async with session.post(one.url, data=rig.review()) as answer:
            assert (answer.status, (await answer.json())["response"]["allowed"]) == (200, True), (
                "a pod without the label is not held up"
            )
        (tmp_path / "..first").mkdir()
        (tmp_path / "..first" / "bundle.pem").write_bytes(Authority().certificate)
        (tmp_path / "bundle.pem").symlink_to("..first/bundle.pem")
        assert await one.ready(session) == (200, "ok\n")
        async with session.post(one.url, data=rig.review(LABELLED)) as answer:
            assert answer.status == 200
        (tmp_path / "..first" / "bundle.pem").write_bytes(leaf.key)
        status, text = await one.ready(session)
        assert (status, "Only certificates may be published" in text) == (503, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {listen: 8443}", "`server.listen`"),
        ("server: {look_s: 600}", "`server.look_s` must be at most half"),
        ("server: {certificate: files}", "`server.cert_file` must be an absolute path"),
        ("server: {listne: x}", "Did you mean `listen`"),
        ("server: {api_server: 'http://x'}", "must be https://host"),
    ],
)
async def test_wrong_settings_are_one_sentence_and_exit_code_2(tmp_path, text, said):
    (tmp_path / "settings.yaml").write_text(text)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "capsign_injector",
        "--settings",
        str(tmp_path / "settings.yaml"),
        "--check-config",
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert said in errors.decode()
    assert errors.count(b"\n") == 1


async def test_one_that_was_stopped_hears_sigterm(tmp_path, mounted):
    """Stopped, SIGTERM, then it goes on: the kernel may hand the signal to any thread."""
    files, _ = mounted
    for number in range(3):
        async with injector(tmp_path, f"stopped-{number}", **files) as one:
            for sent in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):
                one.process.send_signal(sent)
            assert await asyncio.wait_for(one.process.wait(), 20) == 0
