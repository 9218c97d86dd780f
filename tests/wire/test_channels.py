"""No channel of ours goes through a proxy, whatever the environment says, and none is made where
that could be forgotten.
"""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from capsign_wire import channels
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

ROOT = Path(__file__).parents[2]
SOURCES = ("agent", "adapter", "clients", "docs", "k8s", "proto/python", "softhsm")
"""All but `bench`, whose attackers are not bound by how we do things."""
MAKERS = {"insecure_channel", "secure_channel"}
OWN_CHANNELS = {"proto/python/capsign_wire/channels.py"}
EXPORTERS = {"proto/python/capsign_wire/otel.py"}
"""The OTLP exporter makes its channel itself, and honours proxies as its library documents: a
collector may be far away.
"""

VARIABLES = [
    name
    for plain in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
    for name in (plain, plain.upper())
]


@pytest.fixture
def address():
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def proxied(monkeypatch):
    """An environment as in a company's network, with a proxy that leads nowhere."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")


def check(channel):
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)


def test_grpc_alone_would_go_through_the_proxy(address, proxied):
    """The control: without it the next test would prove nothing."""
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
        check(channel)


async def test_ours_do_not(address, proxied):
    with channels.insecure(address) as channel:
        assert check(channel).status
    async with channels.aio_insecure(address, [("grpc.enable_retries", 0)]) as channel:
        assert (await check(channel)).status


@pytest.mark.parametrize("make", [channels.secure, channels.aio_secure])
async def test_what_a_caller_asks_for_cannot_undo_it(make, monkeypatch):
    seen = {}
    monkeypatch.setattr(grpc.aio, "secure_channel", lambda *_, options: seen.update(dict(options)))
    monkeypatch.setattr(grpc, "secure_channel", lambda _, __, options: seen.update(dict(options)))
    make("a:1", grpc.ssl_channel_credentials(), [("grpc.enable_http_proxy", 1)])
    assert seen == {"grpc.enable_http_proxy": 0}


def test_no_other_module_makes_a_channel():
    """`revoke` ended UNREACHABLE with `https_proxy` in the shell, and an agent never connected with
    one on its node.
    """
    found: dict[str, set[str]] = {"channel": set(), "exporter": set()}
    for folder in SOURCES:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if file.name.endswith(("_pb2.py", "_pb2_grpc.py")):
                continue
            name, text = str(file.relative_to(ROOT)), file.read_text()
            if "secure_channel" not in text and "exporter" not in text:
                continue  # parsing takes time
            for node in ast.walk(ast.parse(text)):
                named = {getattr(node, "attr", None), getattr(node, "id", None)}
                named |= {
                    each.name for each in getattr(node, "names", []) if isinstance(each, ast.alias)
                }
                if named & MAKERS:
                    found["channel"].add(name)
                if isinstance(node, ast.ImportFrom) and "exporter" in (node.module or ""):
                    found["exporter"].add(name)
    assert found == {"channel": OWN_CHANNELS, "exporter": EXPORTERS}


def test_nobody_else_looks_at_the_state_of_a_channel():
    """The threads in which gRPC does that outlive the command that began them, and end with a
    traceback; `capsign_cli.connecting` waits for them. Channels of asyncio have no such threads:
    there it is `channel_ready`.
    """
    found = set()
    for folder in (*SOURCES, "bench", "tests"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            text = file.read_text()
            if "channel_ready_future" in text or ".subscribe" in text:
                named = {getattr(node, "attr", None) for node in ast.walk(ast.parse(text))}
                if named & {"channel_ready_future", "subscribe"}:
                    found.add(str(file.relative_to(ROOT)))
    assert found == {"clients/cli/capsign_cli/connecting.py", "tests/cli/test_connecting.py"}
