"""A Kubernetes API that behaves, over real HTTPS: pods, bound tokens, TokenReview with its cache,
ConfigMaps.

It does what the real one does as far as the adapter can see: a token is good while its pod is the
same and runs; a review that said yes is remembered for ten seconds; only who carries the adapter's
own token is answered. And it misbehaves when told to.
"""

from __future__ import annotations

import datetime
import json
import re
import secrets
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from support.ca import Authority

CACHE_SECONDS = 10.0
AUDIENCE = "capsign"


@dataclass
class Pod:
    """A pod as it is stored."""

    namespace: str
    name: str
    service_account: str
    addresses: tuple[str, ...]
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    phase: str = "Running"
    host_network: bool = False
    deleted_at: float | None = None
    """When its grace period ends, seconds since 1970."""

    def document(self) -> dict:
        metadata: dict = {
            "name": self.name,
            "namespace": self.namespace,
            "uid": self.uid,
            "labels": {"app": self.name},
        }
        if self.deleted_at is not None:
            metadata["deletionTimestamp"] = _stamp(self.deleted_at)
        ips = (
            {"podIP": self.addresses[0], "podIPs": [{"ip": ip} for ip in self.addresses]}
            if self.addresses
            else {}
        )
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {
                "serviceAccountName": self.service_account,
                "containers": [{"name": "app", "image": "x"}],
                **({"hostNetwork": True} if self.host_network else {}),
            },
            "status": {"phase": self.phase, **ips},
        }


@dataclass
class _Token:
    audiences: tuple[str, ...]
    ends: float
    namespace: str
    service_account: str
    pod: Pod | None


class FakeCluster:
    """Serves from `__init__` to `close`. `pods`, `config_maps` and `misbehaviour` may be changed
    meanwhile.

    `misbehaviour` is None, or one of "slow" (a header that never ends), "huge", "garbage", "wrong
    shape", "hang up", "500", "401", "403", "404", "redirect" and, for TokenReviews, "no audiences".
    """

    def __init__(self, directory: Path) -> None:
        self.pods: dict[tuple[str, str], Pod] = {}
        self.config_maps: dict[tuple[str, str], dict] = {}
        self.misbehaviour: str | None = None
        self.requests: list[tuple[str, str]] = []
        """Method and path of every request that carried the adapter's token."""
        self.may_continue = threading.Event()
        """Cleared: reviews wait for it."""
        self.may_continue.set()
        self.connections: set[socket.socket] = set()
        """Those that are open."""
        self.connected = 0
        """How many there ever were."""
        self.at_once = 0
        self.most_at_once = 0
        self._now = 0.0  # added to the clock
        self._tokens: dict[str, _Token] = {}
        self._reviewed: dict[tuple[str, str], tuple[float, dict]] = {}
        self._version = 1
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._stop = threading.Event()

        self.ca_file = directory / "cluster-ca.crt"
        self.token_file = directory / "adapter-token"
        self.adapter_token = ""
        self.new_adapter_token()
        self._directory = directory
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.new_authority()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.context, self._server.cluster = self.context, self
        self.port = self._server.server_address[1]
        self.url = f"https://localhost:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def new_authority(self) -> None:
        """The cluster's authority is another one now, and so is the server's certificate."""
        authority = Authority("cluster")
        credential = authority.issue("https://kubernetes", dns=("localhost",))
        certificate, key = credential.write(self._directory, "apiserver")
        self.context.load_cert_chain(certificate, key)
        fresh = self.ca_file.with_suffix(".new")
        fresh.write_bytes(authority.certificate)
        fresh.replace(self.ca_file)

    def new_adapter_token(self) -> None:
        """The kubelet replaces the adapter's own token; the one before is not good any more."""
        self.adapter_token = secrets.token_urlsafe(32)
        self.token_file.write_text(self.adapter_token)

    def run(self, namespace: str, name: str, service_account: str, *addresses: str) -> Pod:
        """A pod that runs, at these addresses."""
        pod = self.pods[namespace, name] = Pod(namespace, name, service_account, addresses)
        return pod

    def delete(self, pod: Pod) -> None:
        """The pod object goes; what TokenReview has in its cache stays."""
        del self.pods[pod.namespace, pod.name]

    def token(
        self,
        pod: Pod | None,
        audience: str = AUDIENCE,
        seconds: float = 600.0,
        account: tuple[str, str] | None = None,
    ) -> str:
        """A token as the kubelet would fetch it for this pod; without a pod, one that is bound to
        nothing.
        """
        word = (
            f"{secrets.token_urlsafe(20)}.{secrets.token_urlsafe(40)}.{secrets.token_urlsafe(40)}"
        )
        namespace, name = account or (
            (pod.namespace, pod.service_account) if pod else ("demo", "app")
        )
        self._tokens[word] = _Token((audience,), self.now() + seconds, namespace, name, pod)
        return word

    def wait_for_reviews(self, count: int) -> None:
        """Until so many reviews are in hand; see `may_continue`."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.at_once >= count, timeout=30)

    def hang_up(self) -> None:
        """End every connection, as a server does with those that are idle for long."""
        with self._lock:
            for connection in self.connections:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self.wait_for_connections(0)

    def wait_for_connections(self, most: int) -> None:
        """Until no more than so many are open."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.connections) <= most, timeout=30)

    def now(self) -> float:
        return time.time() + self._now

    def pass_time(self, seconds: float) -> None:
        """Turn the cluster's clock."""
        self._now += seconds

    def close(self) -> None:
        self.may_continue.set()
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    # What the handler calls.

    def review(self, token: str, audiences: list[str]) -> dict:
        cached = self._reviewed.get((token, audiences[0] if audiences else ""))
        if cached and cached[0] > self.now():
            return cached[1]
        found = self._tokens.get(token)
        refused = {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
        if found is None or not set(found.audiences) & set(audiences) or found.ends < self.now():
            return refused
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={uuid.uuid4()}"]}
        if found.pod is not None:
            stored = self.pods.get((found.pod.namespace, found.pod.name))
            if (
                stored is None
                or stored.uid != found.pod.uid
                or (stored.deleted_at or self.now()) < self.now() - 60
            ):
                return refused
            extra["authentication.kubernetes.io/pod-name"] = [found.pod.name]
            extra["authentication.kubernetes.io/pod-uid"] = [found.pod.uid]
            extra["authentication.kubernetes.io/node-name"] = ["node"]
        status = {
            "authenticated": True,
            "user": {
                "username": f"system:serviceaccount:{found.namespace}:{found.service_account}",
                "uid": str(uuid.uuid4()),
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "extra": extra,
            },
            "audiences": [each for each in audiences if each in found.audiences],
        }
        self._reviewed[token, audiences[0]] = (self.now() + CACHE_SECONDS, status)
        return status

    def answer(self, method: str, path: str, body: bytes, content_type: str) -> tuple[int, dict]:
        with self._lock:
            self.requests.append((method, path))
        if path == "/apis/authentication.k8s.io/v1/tokenreviews" and method == "POST":
            return self._answer_review(json.loads(body))
        if found := re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)", path):
            pod = self.pods.get((found[1], found[2]))
            return (200, pod.document()) if pod else _not_found("pods", found[2])
        if found := re.fullmatch(r"/api/v1/namespaces/([^/]+)/configmaps(?:/([^/]+))?", path):
            return self._answer_config_map(
                method, found[1], found[2] or "", json.loads(body or b"{}"), content_type
            )
        return 404, {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": "",
            "code": 404,
        }

    def _answer_review(self, asked: dict) -> tuple[int, dict]:
        with self._changed:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self._changed.notify_all()
        self.may_continue.wait(30)
        status = self.review(asked["spec"]["token"], asked["spec"].get("audiences", []))
        with self._lock:
            self.at_once -= 1
        if self.misbehaviour == "no audiences":
            status = {key: value for key, value in status.items() if key != "audiences"}
        return 201, {**asked, "status": status}

    def _answer_config_map(
        self, method: str, namespace: str, name: str, asked: dict, content_type: str
    ) -> tuple[int, dict]:
        with self._lock:
            if method == "POST":
                name = asked["metadata"]["name"]
                if (namespace, name) in self.config_maps:
                    return 409, {"kind": "Status", "reason": "AlreadyExists", "code": 409}
                self.config_maps[namespace, name] = {
                    "kind": "ConfigMap",
                    "metadata": dict(asked["metadata"]),
                    "data": asked["data"],
                }
            found = self.config_maps.get((namespace, name))
            if found is None:
                return _not_found("configmaps", name)
            if method == "PATCH":
                assert content_type == "application/merge-patch+json"
                if (
                    asked["metadata"].get("resourceVersion", found["metadata"]["resourceVersion"])
                    != found["metadata"]["resourceVersion"]
                ):
                    return 409, {"kind": "Status", "reason": "Conflict", "code": 409}
                found["metadata"].setdefault("annotations", {}).update(
                    asked["metadata"].get("annotations", {})
                )
                found["data"].update(asked["data"])
            if method != "GET":
                self._version += 1
                found["metadata"]["resourceVersion"] = str(self._version)
            return (201 if method == "POST" else 200), found

    @contextmanager
    def connection(self, connection: socket.socket) -> Iterator[None]:
        with self._changed:
            self.connections.add(connection)
            self.connected += 1
        try:
            yield
        finally:
            with self._changed:
                self.connections.discard(connection)
                self._changed.notify_all()

    def stopped(self, seconds: float) -> bool:
        return self._stop.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    context: ssl.SSLContext
    cluster: FakeCluster

    def finish_request(self, request, client_address):
        request.settimeout(30)
        try:
            with (
                self.context.wrap_socket(request, server_side=True) as secured,
                self.cluster.connection(secured),
            ):
                super().finish_request(secured, client_address)
        except OSError:
            pass  # the client left

    def shutdown_request(self, request):
        request.close()


def _handler(cluster: FakeCluster):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _serve(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            wrong = cluster.misbehaviour
            if wrong == "hang up":
                self.close_connection = True
                return
            if wrong == "redirect":
                self.send_response(307)
                self.send_header("Location", "https://localhost:1/steal")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if wrong in {"500", "403", "404"}:
                self._send(int(wrong), b"no")
            elif (
                wrong == "401"
                or self.headers.get("Authorization") != f"Bearer {cluster.adapter_token}"
            ):
                self._send(
                    401,
                    json.dumps({"kind": "Status", "reason": "Unauthorized", "code": 401}).encode(),
                )
            elif wrong == "garbage":
                self._send(200, b'{"kind": "Pod", \xff\xfe' + b"[" * 5000)
            elif wrong == "wrong shape":
                self._send(200, b'{"kind": "TokenReview", "status": {"authenticated": "yes"}}')
            elif wrong == "huge":
                self._send(
                    200, b'{"kind": "TokenReview", "pad": "' + b"a" * (3 * 1024 * 1024) + b'"}'
                )
            elif wrong == "slow":
                self._trickle()
            else:
                content_type = self.headers.get("Content-Type", "")
                status, document = cluster.answer(self.command, self.path, body, content_type)
                self._send(status, json.dumps(document).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _trickle(self):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not cluster.stopped(0.05):
                self.wfile.write(b"a")
                self.wfile.flush()

        do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - the names that http.server looks for

    return Handler


def _not_found(resource: str, name: str) -> tuple[int, dict]:
    return 404, {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "NotFound",
        "message": f'{resource} "{name}" not found',
        "details": {"name": name, "kind": resource},
        "code": 404,
    }


def _stamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
