"""OTLP: events as log records of OpenTelemetry, each batch acknowledged before the next.

The SDK's processor drops what does not fit its queue and reports nothing; evidence is neither
sampled nor dropped, so the protocol is spoken here, with its own messages. How they get there is
in `export_transport`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from capsign_evidence.archive.events import Event
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service_pb
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2

from capsign_cli import __version__
from capsign_cli.audit.export_sinks import Sink, SinkTooLargeError
from capsign_cli.audit.export_transport import Transport
from capsign_cli.failures import REFUSED, CliError

_SEVERITIES = {
    1: (9, "INFO"),
    2: (10, "INFO2"),
    3: (13, "WARN"),
    4: (17, "ERROR"),
    5: (18, "ERROR2"),
}
"""`severity_id` of OCSF as severity number and text of OpenTelemetry."""

MOST_BYTES = 3 << 20
"""Most bytes of records in a request: gRPC takes 4 MiB unless it is told otherwise."""

GROW_AFTER = 16
"""Requests that are taken before a bound that was halved is doubled."""

NEVER_TOO_LARGE = 1 << 16
"""Bytes that every receiver takes at once. It is busy if it says no and not clearly why."""

Ocsf = Callable[[Event], dict[str, Any]]


class OtlpSink:
    """Sends batches by one of the two transports; refuses to lose a record that was rejected.

    A request that is too much for the receiver is halved. An event that is too much alone goes to
    `aside`, or ends the export.
    """

    most = 512

    def __init__(
        self, send: Transport, values: Ocsf, origin: str, aside: Sink | None = None
    ) -> None:
        self._send = send
        self._values = values
        self._aside = aside
        self.set_aside = 0
        """How many events went aside."""
        self._bytes = MOST_BYTES
        self._taken = 0
        self._batch: tuple[int, int] | None = None
        """The batch that is not taken in whole, and below how many of it are: it is brought again,
        and goes on there."""
        self._at = 0
        self._resource = [
            _attribute("service.name", "capsign-audit"),
            _attribute("service.version", __version__),
            _attribute("capsign.log.origin", origin),
        ]

    def take(self, events: Sequence[Event], first: tuple[int, int]) -> None:
        if first != self._batch:
            self._batch, self._at = first, 0
        while self._at < len(events):
            piece = list(self._fitting(events[self._at :]))
            try:
                self._export(piece)
            except SinkTooLargeError as error:
                self._taken = 0
                if len(piece) > 1:
                    self._bytes = sum(one.ByteSize() for one in piece) // 2
                    continue
                if not error.certain and piece[0].ByteSize() <= NEVER_TOO_LARGE:
                    raise  # then it is busy
                self._too_large(events[self._at], piece[0], error)
            else:
                self._grow()
            self._at += len(piece)
        self._batch = None

    def _fitting(self, events: Sequence[Event]) -> Iterator[logs_pb2.LogRecord]:
        """The first of these, and those behind it that fit into a request with it."""
        room = self._bytes
        for number, event in enumerate(events):
            made = _record(self._values(event))
            room -= made.ByteSize()
            if number and room < 0:
                return
            yield made

    def _grow(self) -> None:
        """What was too large may have been a receiver that was busy and said it in these words."""
        self._taken += 1
        if self._taken == GROW_AFTER:
            self._taken = 0
            self._bytes = min(self._bytes * 2, MOST_BYTES)

    def _export(self, records: Sequence[logs_pb2.LogRecord]) -> None:
        request = service_pb.ExportLogsServiceRequest()
        resource = request.resource_logs.add()
        resource.resource.attributes.extend(self._resource)
        scope = resource.scope_logs.add()
        scope.scope.name, scope.scope.version = "capsign.audit.ocsf", __version__
        scope.log_records.extend(records)
        answer = self._send(request)
        rejected = answer.partial_success.rejected_log_records
        if rejected:
            text = f"The receiver rejected {rejected} records: "
            said = answer.partial_success.error_message[:500] or "it does not say why"
            raise CliError(REFUSED, "REJECTED", f"{text}{said}", "They were not exported.")

    def _too_large(
        self, event: Event, record: logs_pb2.LogRecord, error: SinkTooLargeError
    ) -> None:
        if self._aside is not None:
            self._aside.take([event], (event.index, 0))
            self.set_aside += 1
            return
        uid = self._values(event)["metadata"]["uid"]
        text = f"The receiver does not take {uid} ({record.ByteSize():,} bytes) even alone: {error}"
        advice = "Raise its limit, or give --set-aside FILE for what it does not take."
        raise CliError(REFUSED, "TOO_LARGE", f"{text}.", advice)

    def close(self) -> None:
        self._send.close()
        if self._aside is not None:
            self._aside.close()


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
