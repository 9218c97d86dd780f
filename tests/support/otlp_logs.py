"""A receiver of OTLP logs over gRPC, and one over HTTP, that keep what came and refuse, hang or
reject as a test says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as pb
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as rpc
from support.otlp_receiver import attributes

Answer = Callable[[int], Any]
"""By the number of the request, from 0: None takes it, a status refuses it, and a number rejects
that many of its records.
"""


@dataclass
class Received:
    """Every record that was taken, and how many requests came."""

    records: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: int = 0
    answer: Answer = lambda _: None
    hang: threading.Event | None = None
    largest: int = 1 << 30
    """Bytes that a request over HTTP may have."""
    ends: bool = False
    """Whether each connection over HTTP is closed after an answer, as one that was idle is."""
    trailers: tuple[tuple[str, bytes], ...] = ()
    """What goes with a refusal over gRPC."""
    sizes: list[int] = field(default_factory=list)
    """How many records each request had that was taken."""
    arrived: threading.Event = field(default_factory=threading.Event)

    def uids(self) -> list[str]:
        return [attributes(one.attributes)["log.record.uid"] for one in self.records]

    def handle(self, request: Any) -> Any:
        number, self.requests = self.requests, self.requests + 1
        said = self.answer(number)
        self.arrived.set()
        if self.hang is not None:
            self.hang.wait(60)
        if said is None:
            new = [
                one
                for resource in request.resource_logs
                for scope in resource.scope_logs
                for one in scope.log_records
            ]
            self.records += new
            self.sizes.append(len(new))
        return said


class _Logs(rpc.LogsServiceServicer):
    def __init__(self, received: Received) -> None:
        self._received = received

    def Export(self, request: Any, context: Any) -> Any:
        self._received.headers.append(dict(context.invocation_metadata()))
        said = self._received.handle(request)
        if isinstance(said, grpc.StatusCode):
            context.set_trailing_metadata(self._received.trailers)
            context.abort(said, "as the test says")
        return _response(said)


def _response(rejected: Any) -> Any:
    answer = pb.ExportLogsServiceResponse()
    if rejected:
        answer.partial_success.rejected_log_records = rejected
        answer.partial_success.error_message = "as the test says"
    return answer


@contextmanager
def grpc_receiver(largest: int = 4 << 20) -> Iterator[tuple[str, Received]]:
    """`largest`: bytes that a message may have, as gRPC itself bounds it."""
    received = Received()
    options = [("grpc.max_receive_message_length", largest)]
    server = grpc.server(futures.ThreadPoolExecutor(2), options=options)
    rpc.add_LogsServiceServicer_to_server(_Logs(received), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", received
    finally:
        if received.hang:
            received.hang.set()
        server.stop(0).wait()


@contextmanager
def http_receiver(largest: int = 1 << 30) -> Iterator[tuple[str, Received]]:
    """`largest`: bytes that a body may have; above it the answer is 413, before it is read."""
    received = Received(largest=largest)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            if int(self.headers["Content-Length"]) > received.largest:
                self.send_response(413)
                self.send_header("Content-Length", "0")
                self.end_headers()
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.headers.append({"path": self.path, **dict(self.headers)})
            said = received.handle(pb.ExportLogsServiceRequest.FromString(body))
            status = said if isinstance(said, int) and said >= 100 else 200
            data = _response(said if status == 200 else None).SerializeToString()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = received.ends

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        if received.hang:
            received.hang.set()
        server.shutdown()
        server.server_close()
