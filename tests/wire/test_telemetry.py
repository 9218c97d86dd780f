"""Counts are exact, labels come from the catalogue, and nothing of OpenTelemetry is imported unless
it is asked for.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from capsign_wire import otel
from capsign_wire.failures import REASONS
from capsign_wire.instruments import Kind
from capsign_wire.metric_catalogue import CATALOGUE, INVARIANTS, OUTCOME_NAMES
from capsign_wire.telemetry import Metrics
from capsign_wire.tracing import PassingTracer
from capsign_wire.types.v1 import failures_pb2 as pb

TRACEPARENT = "00-" + "ab" * 16 + "-" + "cd" * 8
ROOT = Path(__file__).parents[2]


def moved(cells):
    """The series that are no longer at 0."""
    return {labels: value for labels, value in cells.items() if value}


@pytest.mark.parametrize(
    "name", [name for name, row in CATALOGUE.items() if row.kind is Kind.COUNTER]
)
def test_every_counter_starts_at_zero_with_every_label_that_it_can_have(name):
    """An alert such as `increase(capsign_refusals_total{reason="HANDLE_STOLEN"}[10m]) > 0` compares
    two values: a series that appears with its first event, at 1, did not grow for it, and the one
    theft that mattered paged nobody.
    """
    counter, row = Metrics().counter(name), CATALOGUE[name]
    assert set(counter.cells.values()) == {0}
    for at, known in enumerate(row.labels.values()):
        assert {labels[at] for labels in counter.cells} == known
    for labels in counter.cells:
        counter.add(*labels)
    assert set(counter.cells.values()) == {1}


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_reason_is_there_before_it_is_first_counted(reason):
    before, metrics = Metrics().snapshot(), Metrics()
    metrics.observe_calls(reason)
    metrics.observe_identity(reason)
    after = metrics.snapshot()
    assert {name: set(cells) for name, cells in before.items()} == {
        name: set(cells) for name, cells in after.items()
    }


def test_a_reason_has_one_outcome():
    with pytest.raises(ValueError, match="takes labels"):
        Metrics().counter("capsign.calls").add("done", "HANDLE_STOLEN")
    with pytest.raises(ValueError, match="takes labels"):
        Metrics().counter("capsign.refusals").add("OVERLOADED")


def test_counters_are_exact_from_many_threads():
    counter = Metrics().counter("capsign.retries")
    start = threading.Barrier(4)

    def work():
        start.wait()
        for _ in range(5000):
            counter.add("upstream")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert moved(counter.cells) == {("upstream",): 20_000}


def test_a_strange_label_is_a_defect():
    metrics = Metrics()
    for values in [("somewhere",), (), ("upstream", "x")]:
        with pytest.raises(ValueError, match=r"capsign\.retries takes"):
            metrics.counter("capsign.retries").add(*values)
    with pytest.raises(ValueError, match="takes labels"):
        metrics.histogram("capsign.call.duration").record(0.1, "MD5")
    with pytest.raises(ValueError, match="takes labels"):
        metrics.gauge("capsign.queue.depth", lambda: 0, "somewhere")
    with pytest.raises(KeyError):
        metrics.counter("capsign.else")


def test_buckets_include_their_upper_bound():
    histogram = Metrics().histogram("capsign.batch.size")
    for value in (1, 2, 3, 1024, 1025):
        histogram.record(value, "upstream")
    cell = histogram.cells["upstream",]
    bounds = histogram.instrument.buckets
    held = {
        bounds[index] if index < len(bounds) else "above": count
        for index, count in enumerate(cell.counts)
        if count
    }
    assert held == {1.0: 1, 2.0: 1, 4.0: 1, 1024.0: 1, "above": 1}
    assert (cell.total, cell.least, cell.most) == (2055, 1, 1025)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_is_counted_in_step(reason):
    metrics = Metrics()
    metrics.observe_calls(reason, items=3)
    row, seen = REASONS[reason], metrics.snapshot()
    assert moved(seen["capsign.calls"]) == {(OUTCOME_NAMES[row.outcome], row.name): 3}
    stirred = {
        name
        for name in ("capsign.refusals", "capsign.unknowns", "capsign.rate_limited")
        if moved(seen[name])
    }
    expected = {
        pb.OUTCOME_REFUSED: {"capsign.refusals"},
        pb.OUTCOME_UNKNOWN: {"capsign.unknowns"},
    }.get(row.outcome, set())
    assert stirred == (
        expected or ({"capsign.rate_limited"} if reason == pb.REASON_RATE_LIMITED else set())
    )


def test_promises_start_at_zero_and_a_broken_one_is_said(capsys):
    metrics = Metrics()
    assert metrics.snapshot()["capsign.invariant.violations"] == {(name,): 0 for name in INVARIANTS}
    metrics.violated("I4", index=7)
    assert metrics.snapshot()["capsign.invariant.violations"]["I4",] == 1
    assert json.loads(capsys.readouterr().err)["invariant"] == "I4"


def test_a_gauge_that_fails_is_left_out(capsys):
    metrics = Metrics()
    metrics.gauge("capsign.queue.depth", lambda: 3, "upstream")
    metrics.gauge("capsign.queue.depth", lambda: 1 // 0, "journal")
    assert metrics.snapshot()["capsign.queue.depth"] == {("upstream",): 3}
    assert json.loads(capsys.readouterr().err)["cause"] == "ZeroDivisionError"


def test_the_documented_table_is_the_catalogue():
    text = (ROOT / "docs/operations/telemetry.md").read_text()
    documented = set(
        re.findall(
            r"^\| `((?:capsign|rpc)\.[a-z_.]+)` \| (?:counter|gauge|histogram) \|",
            text,
            re.MULTILINE,
        )
    )
    assert documented == set(CATALOGUE)


def test_off_imports_nothing_and_hands_the_trace_on():
    code = (
        "import sys; from capsign_wire import otel, telemetry\n"
        "t = otel.start('p', '1', telemetry.Metrics(), {'OTEL_SERVICE_NAME': 'x'})\n"
        "assert t.tracer.span('s', '00-tp').traceparent == '00-tp'\n"
        "t.close()\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_client_imports_neither_settings_nor_telemetry():
    """capsign's own dependencies are grpcio and protobuf: whatever it imports must work without
    msgspec and OpenTelemetry.
    """
    code = (
        "import sys; import capsign; print([m for m in sys.modules if m.split('.')[0] in "
        "{'msgspec', 'opentelemetry'}])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_collector_that_is_away_does_not_keep_a_process_from_ending(capsys):
    """The SDK goes on trying for as long as a minute; agents were killed at the end of their grace
    for the sake of a count.
    """
    back, ended = threading.Event(), []
    running = otel.Telemetry(PassingTracer(), [lambda: ended.append("quick"), back.wait], 0.05)
    running.close()
    assert ended == ["quick"]
    assert json.loads(capsys.readouterr().err)["event"] == "telemetry.last_values_lost"
    back.set()
    running.close()
    assert ended == ["quick"]


def test_disabled_wins(capsys):
    environ = {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    assert isinstance(otel.start("p", "1", Metrics(), environ).tracer, PassingTracer)
    assert "telemetry.started" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4317"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, None),
        ({"OTEL_METRICS_EXPORTER": "console"}, "console"),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, None),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, None),
    ],
)
def test_what_the_standard_variables_ask_for(environ, expected):
    assert otel.exporter_of(environ, "METRICS") == expected


EXPORTING = """
import os, sys
from capsign_wire import otel, telemetry
metrics = telemetry.Metrics()
running = otel.start('capsign-test', '1', metrics, os.environ)
metrics.observe_calls(None, items=5)
metrics.histogram('capsign.call.duration').record(0.0003, 'Ed25519', times=2)
metrics.gauge('capsign.journal.bytes', lambda: 42)
with running.tracer.span('sign', sys.argv[1]) as span:
    span.note('outcome', 'done')
    print('HANDED ON', span.traceparent, file=sys.stderr)
running.close()
"""


def export(traceparent):
    environ = {
        **os.environ,
        "OTEL_METRICS_EXPORTER": "console",
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_SERVICE_NAME": "named",
    }
    command = [sys.executable, "-c", EXPORTING, traceparent]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environ)


def decoded(text):
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        while at < len(text) and text[at].isspace():
            at += 1
    return found


def test_real_export_has_our_numbers_and_real_histograms():
    ran = export(TRACEPARENT + "-01")
    spans = [one for one in decoded(ran.stdout) if "trace_id" in one.get("context", {})]
    (resource,) = next(one for one in decoded(ran.stdout) if "resource_metrics" in one)[
        "resource_metrics"
    ]
    assert resource["resource"]["attributes"]["service.name"] == "named"
    shown = {
        metric["name"]: metric["data"]
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
    }
    calls = {
        tuple(one["attributes"].values()): one["value"]
        for one in shown["capsign.calls"]["data_points"]
    }
    assert set(calls) == set(CATALOGUE["capsign.calls"].series())
    assert moved(calls) == {("done", "NONE"): 5}
    (duration,) = shown["capsign.call.duration"]["data_points"]
    assert (duration["count"], duration["min"], sum(duration["bucket_counts"])) == (2, 0.0003, 2)
    assert duration["explicit_bounds"] == list(CATALOGUE["capsign.call.duration"].buckets)
    assert shown["capsign.journal.bytes"]["data_points"][0]["value"] == 42
    (span,) = spans
    assert span["context"]["trace_id"] == "0x" + "ab" * 16
    assert span["parent_id"] == "0x" + "cd" * 8
    assert span["attributes"] == {"capsign.outcome": "done"}
    assert f"HANDED ON 00-{'ab' * 16}-{span['context']['span_id'][2:]}-01" in ran.stderr


def test_an_unsampled_trace_is_handed_on_and_not_recorded():
    ran = export(TRACEPARENT + "-00")
    assert f"HANDED ON {TRACEPARENT}-00" in ran.stderr
    assert not [one for one in decoded(ran.stdout) if "trace_id" in one.get("context", {})]


def test_every_kind_is_kept():
    metrics = Metrics()
    kept: dict[Kind, dict[str, Any]] = {
        Kind.COUNTER: metrics.counters,
        Kind.HISTOGRAM: metrics.histograms,
        Kind.GAUGE: metrics.gauges,
    }
    assert all(name in kept[row.kind] for name, row in CATALOGUE.items())
