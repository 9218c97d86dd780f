"""OpenTelemetry's own collector takes what `capsign audit export` sends and writes it to a file:
each event is there, whatever ends the export on the way.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from itertools import chain

import pytest
from capsign_cli.audit.export_endpoint import Endpoint
from capsign_cli.audit.export_ocsf import uid_of
from capsign_cli.audit.export_sinks import SinkTooLargeError
from capsign_cli.audit.export_transport import GrpcTransport, HttpTransport
from capsign_evidence.archive import open_archive
from capsign_evidence.archive.reading import events
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from support.adapter_rig import AdapterRig, now_ms
from support.collector import free_port, needs_collector, running

pytestmark = [pytest.mark.system, needs_collector]

ORIGIN = "capsign.test/log"
CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}", max_recv_msg_size_mib: 1}}
      http: {{endpoint: "127.0.0.1:{http}", max_request_body_size: 1000000}}
exporters:
  file: {{path: {file}}}
  debug: {{verbosity: basic, use_internal_logger: false}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: info}}}}
  pipelines:
    logs: {{receivers: [otlp], exporters: [file, debug]}}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rig = AdapterRig(tmp_path_factory.mktemp("rig") / "store")
    for number in range(20):
        rig.sign(*(b"%d of %d" % (number, one) for one in range(100)))
    rig.checkpoints.current(now_ms())
    yield str(rig.url).removeprefix("sqlite://")
    rig.close()


def written(file):
    """The ids of what the collector wrote, as OTLP's JSON has them, by request."""
    found = []
    for line in file.read_text().splitlines():
        records = [
            one
            for resource in json.loads(line)["resourceLogs"]
            for scope in resource["scopeLogs"]
            for one in scope["logRecords"]
        ]
        pairs = [{pair["key"]: pair["value"] for pair in one["attributes"]} for one in records]
        found.append([one["log.record.uid"]["stringValue"] for one in pairs])
    return found


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_each_event_arrives_though_the_export_is_killed_half_way(store, tmp_path, protocol):
    ports, file = {"grpc": free_port(), "http/protobuf": free_port()}, tmp_path / "events"
    config = CONFIG.format(grpc=ports["grpc"], http=ports["http/protobuf"], file=file)
    cursor = tmp_path / "cursor"
    command = [sys.executable, "-m", "capsign_cli", "audit", "export", store, "--cursor", cursor]
    command += ["--format", "ocsf-otlp", "--protocol", protocol]
    command += ["--endpoint", f"http://127.0.0.1:{ports[protocol]}"]
    os.mkfifo(tmp_path / "shown")
    opened = os.open(tmp_path / "shown", os.O_RDWR)
    with running(tmp_path, config) as (collector, _), os.fdopen(opened, "rb") as shown:
        exporting = subprocess.Popen(command)
        assert shown.readline()  # a batch has arrived
        collector.send_signal(signal.SIGSTOP)
        os.kill(exporting.pid, signal.SIGKILL)
        exporting.wait()
        collector.send_signal(signal.SIGCONT)
        with open_archive(store) as archive:
            wanted = {uid_of(ORIGIN, one) for one in events(archive) if one.what != "agent-batch"}
            assert json.loads(cursor.read_text())["leaf"] < archive.size
        subprocess.run(command, check=True, timeout=120)
    found = Counter(chain.from_iterable(written(file)))
    assert set(found) == wanted
    assert max(found.values()) <= 2


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_what_it_says_of_too_much_at_once_is_understood(tmp_path, protocol):
    """And one that is smaller passes on the same connection."""
    ports, file = {"grpc": free_port(), "http/protobuf": free_port()}, tmp_path / "events"
    config = CONFIG.format(grpc=ports["grpc"], http=ports["http/protobuf"], file=file)
    with running(tmp_path, config):
        to = Endpoint(f"http://127.0.0.1:{ports[protocol]}", 30)
        send = GrpcTransport(to) if protocol == "grpc" else HttpTransport(to)
        for size in (2 << 20, 900_000):
            request = logs_service_pb2.ExportLogsServiceRequest()
            record = request.resource_logs.add().scope_logs.add().log_records.add()
            record.attributes.add(key="log.record.uid").value.string_value = f"of {size} bytes"
            record.body.string_value = "x" * size
            if size > 1 << 20:
                with pytest.raises(SinkTooLargeError) as refused:
                    send(request)
                assert refused.value.certain
            else:
                send(request)
        send.close()
    assert written(file) == [["of 900000 bytes"]]
