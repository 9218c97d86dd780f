"""OTLP: events as log records of OpenTelemetry, over gRPC or HTTP, each batch acknowledged before
the next.

The SDK's processor drops what does not fit its queue and reports nothing; evidence is neither
sampled nor dropped, so the protocol is spoken here, with its own messages.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from capsign_evidence.archive.events import Event
from capsign_wire import channels, tls_trust
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service_pb
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as service_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2

from capsign_cli import __version__
from capsign_cli.audit.export_sinks import SinkBusyError
from capsign_cli.failures import REFUSED, USAGE, CliError

_SEVERITIES = {
    1: (9, "INFO"),
    2: (10, "INFO2"),
    3: (13, "WARN"),
    4: (17, "ERROR"),
    5: (18, "ERROR2"),
}
"""`severity_id` of OCSF as severity number and text of OpenTelemetry."""

_BUSY = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""What OTLP says may be tried again, and of HTTP the same."""
_BUSY_HTTP = frozenset({408, 429, 502, 503, 504})
_MOST_ANSWER = 1 << 20

Ocsf = Callable[[Event], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to, in how many seconds at most, whom to trust, and what to send along."""

    url: str
    timeout_s: float
    ca: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def parts(self) -> tuple[bool, str, int, str]:
        """Whether it is TLS, host, port, path. Raises CliError."""
        split = urlsplit(self.url)
        if split.scheme not in {"http", "https"} or not split.hostname:
            text = f"{self.url} is no endpoint of OTLP."
            raise CliError(USAGE, "ENDPOINT", text, "Give http://HOST:PORT or https://HOST:PORT.")
        return split.scheme == "https", split.hostname, split.port or 4317, split.path


class OtlpSink:
    """Sends batches by one of the two transports; refuses to lose a record that was rejected."""

    most = 512

    def __init__(self, send: Transport, values: Ocsf, origin: str) -> None:
        self._send = send
        self._values = values
        self._resource = [
            _attribute("service.name", "capsign-audit"),
            _attribute("service.version", __version__),
            _attribute("capsign.log.origin", origin),
        ]

    def take(self, events: Sequence[Event], first: tuple[int, int]) -> None:
        request = service_pb.ExportLogsServiceRequest()
        resource = request.resource_logs.add()
        resource.resource.attributes.extend(self._resource)
        scope = resource.scope_logs.add()
        scope.scope.name, scope.scope.version = "capsign.audit.ocsf", __version__
        scope.log_records.extend(_record(self._values(one)) for one in events)
        answer = self._send(request)
        rejected = answer.partial_success.rejected_log_records
        if rejected:
            text = f"The receiver rejected {rejected} records: "
            said = answer.partial_success.error_message[:500] or "it does not say why"
            raise CliError(REFUSED, "REJECTED", f"{text}{said}", "They were not exported.")

    def close(self) -> None:
        self._send.close()


class Transport:
    """Brings a request to the receiver. Raises SinkBusyError, or CliError for what another attempt
    would not change.
    """

    def __call__(
        self, request: service_pb.ExportLogsServiceRequest
    ) -> service_pb.ExportLogsServiceResponse:
        raise NotImplementedError

    def close(self) -> None:
        """Give back what it holds."""


class GrpcTransport(Transport):
    """OTLP/gRPC."""

    def __init__(self, endpoint: Endpoint) -> None:
        secure, host, port, _ = endpoint.parts()
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if secure:
            roots = endpoint.ca.read_bytes() if endpoint.ca else None
            self._channel = channels.secure(address, grpc.ssl_channel_credentials(roots))
        else:
            self._channel = channels.insecure(address)
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
            code = error.code()
            if code in _BUSY:
                raise SinkBusyError(f"{code.name}: {error.details()}") from None
            raise _refused(f"{code.name}: {error.details()}") from None
        return answer

    def close(self) -> None:
        self._channel.close()


class HttpTransport(Transport):
    """OTLP/HTTP with Protobuf, to the path /v1/logs unless the endpoint has one."""

    def __init__(self, endpoint: Endpoint) -> None:
        secure, host, port, path = endpoint.parts()
        self._path = path if path.strip("/") else "/v1/logs"
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
        try:
            body = request.SerializeToString()
            self._connection.request("POST", self._path, body, self._headers)
            answer = self._connection.getresponse()
            data = answer.read(_MOST_ANSWER)
        except ssl.SSLCertVerificationError as error:
            self._connection.close()
            raise _refused(f"its certificate is not trusted: {error.verify_message}") from None
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next request opens it anew
            raise SinkBusyError(str(error) or type(error).__name__) from None
        if answer.status in _BUSY_HTTP:
            raise SinkBusyError(f"HTTP {answer.status}")
        if answer.status != 200:
            raise _refused(f"HTTP {answer.status}")
        return service_pb.ExportLogsServiceResponse.FromString(data)

    def close(self) -> None:
        self._connection.close()


def _refused(what: str) -> CliError:
    text = f"The receiver does not take it ({what})."
    return CliError(REFUSED, "SINK_REFUSED", text, "Look at its own log; the cursor has not moved.")


def _record(event: Mapping[str, Any]) -> logs_pb2.LogRecord:
    """`log.record.uid` is by the semantic conventions what makes two records the same one."""
    number, text = _SEVERITIES[event["severity_id"]]
    nanoseconds = event["time"] * 1_000_000
    return logs_pb2.LogRecord(
        time_unix_nano=nanoseconds if nanoseconds < 1 << 64 else 0,
        severity_number=logs_pb2.SeverityNumber.ValueType(number),
        severity_text=text,
        body=_value(event),
        attributes=[
            _attribute("log.record.uid", event["metadata"]["uid"]),
            _attribute("ocsf.version", event["metadata"]["version"]),
            _attribute("ocsf.class_uid", event["class_uid"]),
            _attribute("ocsf.type_uid", event["type_uid"]),
        ],
        event_name=f"ocsf.{event['class_name'].lower().replace(' ', '_')}",
    )


def _attribute(key: str, value: Any) -> common_pb2.KeyValue:
    return common_pb2.KeyValue(key=key, value=_value(value))


def _value(value: Any) -> common_pb2.AnyValue:
    match value:
        case bool():
            return common_pb2.AnyValue(bool_value=value)
        case int() if -(1 << 63) <= value < 1 << 63:
            return common_pb2.AnyValue(int_value=value)
        case list():
            values = common_pb2.ArrayValue(values=map(_value, value))
            return common_pb2.AnyValue(array_value=values)
        case Mapping():
            pairs = common_pb2.KeyValueList(
                values=[_attribute(key, one) for key, one in value.items()]
            )
            return common_pb2.AnyValue(kvlist_value=pairs)
        case _:
            return common_pb2.AnyValue(string_value=str(value))
