"""A Kubernetes API of two objects: one Secret and one MutatingWebhookConfiguration, over HTTPS.

It keeps what the real one promises: a write that names an old resourceVersion is a conflict and
changes nothing, a read sees the last write, a trust bundle that is no PEM is refused, and every
answer carries the server's clock. It allows what the chart's role allows, get and update of these
two by name and the creation of that one Secret, and remembers whatever else was tried.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from capsign_injector.certificate import certificates
from capsign_injector.server_settings import Server
from support.ca import Authority

TOKEN = "a-token"

Before = Callable[[str, str], Awaitable[None]]


class FakeKube:
    """The server and its state. `clock` gives seconds since 1970."""

    def __init__(self, settings: Server, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.version = 1
        self.writes: list[str] = []
        """Kinds of the writes that took effect."""
        self.conflicts = 0
        self.refused: list[str] = []
        """What the role does not allow."""
        self.forbidden: set[str] = set()
        """Requests such as `PUT secrets` that are answered 403."""
        self.lost: set[str] = set()
        """Requests such as `PUT secrets` that take effect and whose answer is lost, once each."""
        self.before: Before | None = None
        """Awaited before a request is looked at: holds it up."""
        self.history: list[tuple[float, frozenset[bytes]]] = [(clock(), frozenset())]
        """DER of what was trusted, and since when."""
        self.paths = {
            f"/api/v1/namespaces/{settings.namespace}/secrets/{settings.secret}": "secrets",
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/"
            + settings.webhook_configuration: "webhooks",
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": self._metadata(settings.secret),
        }
        webhooks = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": self._metadata(settings.webhook_configuration),
            "webhooks": [
                {
                    "name": "pods.capsign.dev",
                    "clientConfig": {"service": {"name": "capsign-injector", "path": "/inject"}},
                },
                {
                    "name": "second.capsign.dev",
                    "clientConfig": {"service": {"name": "capsign-injector", "path": "/inject"}},
                },
            ],
        }
        self.secrets = f"/api/v1/namespaces/{settings.namespace}/secrets"
        self.secret = settings.secret
        self.objects: dict[str, dict[str, Any] | None] = {"secrets": secret, "webhooks": webhooks}

    def _metadata(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "resourceVersion": "1",
            "labels": {"app.kubernetes.io/name": "capsign"},
            "uid": f"uid-{name}",
        }

    def data(self) -> dict[str, bytes]:
        """The Secret's entries."""
        secret = self.objects["secrets"]
        assert secret is not None
        return {name: base64.b64decode(text) for name, text in secret.get("data", {}).items()}

    def bundles(self) -> list[bytes]:
        """What each webhook trusts."""
        webhooks = self.objects["webhooks"]
        assert webhooks is not None
        return [
            base64.b64decode(one["clientConfig"].get("caBundle", ""))
            for one in webhooks["webhooks"]
        ]

    def edit(self, kind: str, change: Callable[[dict[str, Any]], None]) -> None:
        """What an operator does with kubectl edit."""
        changed = copy.deepcopy(self.objects[kind])
        assert changed is not None
        change(changed)
        self._put(kind, changed)

    def _put(self, kind: str, changed: dict[str, Any]) -> None:
        self.version += 1
        changed["metadata"]["resourceVersion"] = str(self.version)
        self.objects[kind] = changed
        if kind == "webhooks":
            trusted = [
                frozenset(one.der for one in certificates.read_all(bundle))
                for bundle in self.bundles()
            ]
            self.history.append((self.clock(), frozenset.intersection(*trusted)))

    async def handle(self, request: web.Request) -> web.Response:
        kind = self.paths.get(request.path, "")
        call = f"{request.method} {kind or request.path}"
        if self.before is not None:
            await self.before(request.method, kind)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {})
        if (request.method, request.path) == (
            "POST",
            self.secrets,
        ) and "POST secrets" not in self.forbidden:
            return self._create(msgspec.json.decode(await request.read()))
        if not kind or request.method not in {"GET", "PUT"}:
            self.refused.append(call)
            return self._answer(403, {})
        if call in self.forbidden:
            return self._answer(403, {})
        present = self.objects[kind]
        if present is None:
            return self._answer(404, {})
        if request.method == "GET":
            return self._answer(200, present)
        return self._replace(call, kind, present, msgspec.json.decode(await request.read()))

    def _create(self, wanted: dict[str, Any]) -> web.Response:
        if (wanted["metadata"]["name"], wanted["type"]) != (self.secret, "Opaque"):
            self.refused.append(f"POST {wanted['metadata']['name']}")
            return self._answer(403, {})
        if self.objects["secrets"] is not None:
            self.conflicts += 1
            return self._answer(409, {})
        self._put("secrets", wanted)
        self.writes.append("secrets")
        return self._answer(201, wanted)

    def _replace(
        self, call: str, kind: str, present: dict[str, Any], wanted: dict[str, Any]
    ) -> web.Response:
        # An update that names no version is unconditional, as in a real API server: the injector
        # must never send one.
        if wanted["metadata"].get("resourceVersion") != present["metadata"]["resourceVersion"]:
            self.conflicts += 1
            return self._answer(409, {})
        try:
            if kind == "webhooks":
                for one in wanted["webhooks"]:
                    certificates.read_all(base64.b64decode(one["clientConfig"].get("caBundle", "")))
            else:
                [base64.b64decode(text, validate=True) for text in wanted.get("data", {}).values()]
        except ValueError:
            return self._answer(422, {})
        self._put(kind, wanted)
        self.writes.append(kind)
        if call in self.lost:
            self.lost.discard(call)
            raise ConnectionResetError("the answer is lost")
        return self._answer(200, wanted)

    def _answer(self, status: int, body: dict[str, Any]) -> web.Response:
        date = format_datetime(
            datetime.datetime.fromtimestamp(int(self.clock()), datetime.UTC), usegmt=True
        )
        return web.Response(status=status, body=msgspec.json.encode(body), headers={"Date": date})


@asynccontextmanager
async def running(kube: FakeKube, directory: Path) -> AsyncIterator[dict[str, str]]:
    """Serve on a free port; gives the settings `api_server`, `token_file` and `ca_file` that lead
    there.
    """
    authority = Authority("cluster CA")
    certificate, key = authority.issue(dns=("localhost",)).write(directory, "kube")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    (directory / "token").write_text(TOKEN)
    (directory / "cluster-ca.pem").write_bytes(authority.certificate)
    runner = web.ServerRunner(web.Server(kube.handle, access_log=None), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield {
            "api_server": f"https://localhost:{port}",
            "token_file": str(directory / "token"),
            "ca_file": str(directory / "cluster-ca.pem"),
        }
    finally:
        await asyncio.shield(runner.cleanup())
