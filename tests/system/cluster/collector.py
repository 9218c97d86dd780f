"""A receiver of OTLP logs in a pod, for the chart's export: it keeps the ids of all that came."""

from __future__ import annotations

import json

from support.ca import Credential
from system.cluster.kit import manifests
from system.cluster.kit.cluster import Cluster

NAME = "collector"
READER = "export-reader"
PORT = 4318

RECEIVES = """
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

came = {}

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    said = {one.key: one.value.string_value for one in record.attributes}
                    uid = said["log.record.uid"]
                    came[uid] = came.get(uid, 0) + 1
        self.answer(b"")

    def do_GET(self):
        self.answer(json.dumps(came).encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("0.0.0.0", 4318), Handler).serve_forever()
"""


class Collector:
    """In the release's namespace, beside what sends to it."""

    def __init__(self, cluster: Cluster, image: str, namespace: str) -> None:
        self._cluster = cluster
        self._image = image
        self._namespace = namespace

    def start(self, reader: Credential) -> None:
        """The receiver, and the certificate by which the log is read for it."""
        app = manifests.python("app", RECEIVES, self._image)
        self._cluster.kubectl.create(
            manifests.pod(NAME, self._namespace, manifests.pod_spec(app)),
            manifests.service(NAME, self._namespace, PORT, PORT),
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": READER, "namespace": self._namespace},
                "type": "kubernetes.io/tls",
                "stringData": {
                    "tls.crt": reader.certificate.decode(),
                    "tls.key": reader.private_key.decode(),
                },
            },
        )

    @property
    def values(self) -> dict[str, object]:
        """The chart's `export` that leads here."""
        return {
            "enabled": True,
            "endpoint": f"http://{NAME}.{self._namespace}.svc:{PORT}",
            "protocol": "http/protobuf",
            "readerSecret": READER,
            "pollSeconds": 2,
        }

    def came(self) -> dict[str, int]:
        """How often each event came, by its id."""
        path = f"/api/v1/namespaces/{self._namespace}/pods/{NAME}:{PORT}/proxy/"
        status, text = self._cluster.api.ask("GET", path)
        assert status == 200, text
        found: dict[str, int] = json.loads(text)
        return found
