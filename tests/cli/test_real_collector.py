"""OpenTelemetry's own collector takes what agent and adapter export, and shows one trace across
them.

The collector is built by `make collector` (its modules take two minutes of CPU, so CI does without:
the same exports are held against the protobufs of OTLP in test_telemetry_end_to_end.py).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.collector import free_port, needs_collector, running

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
APPLICATION = ROOT / "tests/support/traced_app.py"
CONFIG = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{debug: {{verbosity: detailed, use_internal_logger: false}}}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: info}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [debug]}}
    metrics: {{receivers: [otlp], exporters: [debug]}}
"""
SPAN = re.compile(r"Trace ID +: (\w+)\n +Parent ID +: (\w*)\n +ID +: (\w+)\n +Name +: (\S+)")


@contextmanager
def collector(directory: Path):
    port = free_port()
    with running(directory, CONFIG.format(port=port)) as (_, shown):
        yield f"http://127.0.0.1:{port}", shown


def run(*command, **environ):
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CAPSIGN_", "OTEL_"))
    }
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**clean, **environ}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_collector
def test_a_real_collector_shows_one_trace_and_every_counter(tmp_path):
    place = str(tmp_path / "dev")
    with collector(tmp_path) as (endpoint, shown):
        capsign = (sys.executable, "-m", "capsign_cli", "dev")
        run(*capsign, "up", "--dir", place, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        try:
            sockets = json.loads((Path(place) / "capsign.json").read_text())["sockets"]
            run(
                sys.executable,
                str(APPLICATION),
                CAPSIGN_SOCKET=sockets["app"],
                OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            )
        finally:
            run(*capsign, "down", "--dir", place)
    text = shown.read_text()
    spans = {id_: (trace, parent, name) for trace, parent, id_, name in SPAN.findall(text)}
    chains = [
        (app, agent, adapter)
        for adapter, (trace, agent, name) in spans.items()
        if name == "capsign.adapter.batch" and agent in spans
        for app in [spans[agent][1]]
        if spans[agent][2] == "capsign.agent.sign" and app in spans and spans[app][0] == trace
    ]
    assert {"streamed", "unary", "refused"} <= {spans[app][2] for app, _, _ in chains}
    assert "capsign.outcome: Str(done)" in text
    assert "SpanLink #0" in text
    for service in ("capsign-agent", "capsign-adapter"):
        assert f"service.name: Str({service})" in text
    for metric in (
        "capsign.calls",
        "capsign.call.duration",
        "rpc.server.call.duration",
        "capsign.token.errors",
    ):
        assert f"-> Name: {metric}\n" in text
    assert "reason: Str(HANDLE_STOLEN)" in text
