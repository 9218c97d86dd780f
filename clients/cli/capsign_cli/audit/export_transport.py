"""How a request of OTLP gets to its receiver: over gRPC, or over HTTP with Protobuf. What it says
when it does not take it is told apart: later, in parts, or never.
"""

from __future__ import annotations

import http.client
import ssl
from contextlib import suppress
from typing import Protocol

import grpc
from capsign_wire import channels, tls_trust
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service_pb
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as service_grpc

from capsign_cli.audit.export_endpoint import Endpoint
from capsign_cli.audit.export_sinks import SinkBusyError, SinkTooLargeError
from capsign_cli.failures import REFUSED, CliError

_BUSY = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""What OTLP says may be tried again, and of HTTP the same."""
_BUSY_HTTP = frozenset({408, 429, 502, 503, 504})
_TOO_LARGE_HTTP = 413
_TOO_LARGE_GRPC = ("larger than max", "exceeds maximum size")
"""How gRPC's libraries say it: those in C and Go, and the one in Java."""
_TOO_LARGE_BODY = b"http: request body too large"
"""How OpenTelemetry's collector says it over HTTP, with status 400: Go's net/http's words."""
_RETRY_INFO = b"google.rpc.RetryInfo"
_DETAILS = "grpc-status-details-bin"
_MOST_ANSWER = 1 << 20
_MOST_SAID = 300


class Transport(Protocol):
    """Brings a request to the receiver. Raises SinkBusyError, SinkTooLargeError for what may pass
    in parts, or CliError for what another attempt would not change.
    """

    def __call__(
        self, request: service_pb.ExportLogsServiceRequest
    ) -> service_pb.ExportLogsServiceResponse: ...

    def close(self) -> None:
        """Give back what it holds."""


class GrpcTransport:
    """OTLP/gRPC."""

    def __init__(self, endpoint: Endpoint) -> None:
        secure, host, port = endpoint.grpc()
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if secure:
            roots = endpoint.ca.read_bytes() if endpoint.ca else None
            self._channel = channels.secure(address, grpc.ssl_channel_credentials(roots))
        else:
            self._channel = channels.insecure(address)
        # generated without types
        self._stub = service_grpc.LogsServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout_s = endpoint.timeout_s
        self._metadata = tuple((name.lower(), value) for name, value in endpoint.headers.items())

    def __call__(
        self, request: service_pb.ExportLogsServiceRequest
    ) -> service_pb.ExportLogsServiceResponse:
        try:
            answer: service_pb.ExportLogsServiceResponse = self._stub.Export(
                request, timeout=self._timeout_s, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise _of_grpc(error) from None
        return answer

    def close(self) -> None:
        self._channel.close()


def _of_grpc(error: grpc.RpcError) -> Exception:
    """RESOURCE_EXHAUSTED is a receiver that is busy if it says when to come back (RetryInfo, as
    OTLP demands of it); gRPC's own libraries say the same of a message above their bound.
    """
    code, said = error.code(), f"{error.code().name}: {(error.details() or '')[:_MOST_SAID]}"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        details = [one.value for one in error.trailing_metadata() or () if one.key == _DETAILS]
        if any(isinstance(one, bytes) and _RETRY_INFO in one for one in details):
            return SinkBusyError(said)
        return SinkTooLargeError(said, certain=any(one in said for one in _TOO_LARGE_GRPC))
    return SinkBusyError(said) if code in _BUSY else _refused(said)


class HttpTransport:
    """OTLP/HTTP with Protobuf."""

    def __init__(self, endpoint: Endpoint) -> None:
        secure, host, port, self._path = endpoint.http()
        self._headers = {"Content-Type": "application/x-protobuf", **endpoint.headers}
        if secure:
            trust = tls_trust.of_the_system()
            if endpoint.ca:
                trust = tls_trust.context(endpoint.ca.read_text("ascii"), ssl.TLSVersion.TLSv1_2)
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=endpoint.timeout_s, context=trust
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=endpoint.timeout_s)

    def __call__(
        self, request: service_pb.ExportLogsServiceRequest
    ) -> service_pb.ExportLogsServiceResponse:
        used = self._connection.sock is not None
        try:
            body = request.SerializeToString()
            with suppress(BrokenPipeError, ConnectionResetError):
                # who takes no more of it may have said why before that
                self._connection.request("POST", self._path, body, self._headers)
            answer = self._connection.getresponse()
            data = answer.read(_MOST_ANSWER)
        except ssl.SSLCertVerificationError as error:
            self._connection.close()
            raise _refused(f"its certificate is not trusted: {error.verify_message}") from None
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next request opens it anew
            if used and not isinstance(error, TimeoutError):
                return self(request)  # receivers close what was idle for a while
            raise SinkBusyError(str(error) or type(error).__name__) from None
        if answer.status in _BUSY_HTTP:
            raise SinkBusyError(f"HTTP {answer.status}")
        too_large = answer.status == 400 and _TOO_LARGE_BODY in data
        if too_large or answer.status == _TOO_LARGE_HTTP:
            self._connection.close()  # it may not have read the rest
            raise SinkTooLargeError(f"HTTP {answer.status}", certain=True)
        if answer.status != 200:
            raise _refused(f"HTTP {answer.status}")
        return service_pb.ExportLogsServiceResponse.FromString(data)

    def close(self) -> None:
        self._connection.close()


def _refused(what: str) -> CliError:
    text = f"The receiver does not take it ({what})."
    return CliError(REFUSED, "SINK_REFUSED", text, "Look at its own log; the cursor has not moved.")
