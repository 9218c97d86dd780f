"""With the standard variables, agent and adapter export: one trace across both, and their counters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

TRACE, PARENT = "4b" * 16, "00f067aa0ba902b7"
SIGNING = """
import sys
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
import capsign
span = NonRecordingSpan(SpanContext(int(sys.argv[1], 16), int(sys.argv[2], 16), is_remote=False, trace_flags=TraceFlags(1)))
with use_span(span), capsign.Signer() as signer:
    signer.sign(b"m", purpose="artifact", algorithm="ES256")
"""


def run(*command, **environ):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CAPSIGN_", "OTEL_"))}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env={**clean, **environ})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def dev(command, directory, **environ):
    return json.loads(run(sys.executable, "-m", "capsign_cli", "dev", command, "--dir", directory, "-o", "json", **environ))


def exported(log):
    """The JSON documents that the console exporters wrote, between lines of our own log."""
    text, decoder, found = Path(log).read_text(), json.JSONDecoder(), []
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    return found


def spans(documents):
    return [one for one in documents if one.get("context", {}).get("trace_id") == f"0x{TRACE}"]


def metrics(documents):
    shown = {}
    for one in documents:
        for resource in one.get("resource_metrics", ()):
            assert resource["resource"]["attributes"]["service.name"].startswith("capsign-")
            shown |= {metric["name"]: metric["data"]["data_points"] for s in resource["scope_metrics"] for metric in s["metrics"]}
    return shown


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("otel"))
    state = dev("up", directory, OTEL_METRICS_EXPORTER="console", OTEL_TRACES_EXPORTER="console")
    try:
        run(sys.executable, "-c", SIGNING, TRACE, PARENT, CAPSIGN_SOCKET=state["sockets"]["app"])
    finally:
        dev("down", directory)
    return {"agent": exported(state["agent"]["log"]), "adapter": exported(state["adapters"][0]["log"])}


def test_one_trace_goes_through_agent_and_adapter(logs):
    (agent,) = spans(logs["agent"])
    (adapter,) = spans(logs["adapter"])
    assert agent["parent_id"] == f"0x{PARENT}"
    assert adapter["parent_id"] == agent["context"]["span_id"]


@pytest.mark.parametrize("process", ["agent", "adapter"])
def test_calls_are_counted_on_both_sides(logs, process):
    shown = metrics(logs[process])
    done = [one["value"] for one in shown["capsign.calls"] if one["attributes"] == {"outcome": "done", "reason": "NONE"}]
    assert done == [1]
    assert [one["count"] for one in shown["capsign.call.duration"]] == [1]
    assert all(one["value"] == 0 for one in shown["capsign.invariant.violations"])
