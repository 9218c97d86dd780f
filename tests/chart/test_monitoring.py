"""Alerts and panels look at what is exported: metrics and label values of the catalogue, by
Prometheus's names for them.
"""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml
from capsign_injector.serve.metrics import OUTCOMES
from capsign_injector.serve.metrics import Metrics as InjectorMetrics
from capsign_wire.instruments import Instrument, Kind
from capsign_wire.metric_catalogue import CATALOGUE
from support.chart import REPOSITORY, manifests

UNITS = {"s": "_seconds", "By": "_bytes", "1": "_ratio"}
SELECTOR = re.compile(
    r"\b(?P<name>(?:capsign|rpc_(?:server|client))_[a-z_]+)(?:\{(?P<matchers>[^}]*)\})?"
)
MATCHER = re.compile(r'(?P<label>[a-z_]+)(?:=~|!=|!~|=)"(?P<value>[^"]*)"')


def prometheus(row: Instrument) -> list[str]:
    """What OpenTelemetry's compatibility specification makes of a metric's name in Prometheus."""
    name, unit = row.name.replace(".", "_"), UNITS.get(row.unit, "")
    base = name if name.endswith(unit) else name + unit
    if row.kind is Kind.COUNTER:
        return [f"{base}_total"]
    return (
        [f"{base}_{part}" for part in ("bucket", "sum", "count")]
        if row.kind is Kind.HISTOGRAM
        else [base]
    )


EXPORTED = {name: row for row in CATALOGUE.values() for name in prometheus(row)}


def injectors() -> set[str]:
    """Names that the injector's endpoint can show: those of its text, and its gauges."""
    shown = set(re.findall(r"^([a-z_]+)", InjectorMetrics().text(), re.MULTILINE))
    process = (REPOSITORY / "k8s/injector/capsign_injector/replica.py").read_text()
    return shown | set(re.findall(r'"(capsign_injector_[a-z_]+)"', process))


def rules():
    text = manifests({"monitoring": {"rules": {"enabled": True}}})
    (document,) = [
        yaml.safe_load(one) for path, one in text.items() if path.endswith("monitoring/rules.yaml")
    ]
    return {one["alert"]: one for group in document["spec"]["groups"] for one in group["rules"]}


def panels():
    dashboard = json.loads((REPOSITORY / "k8s/chart/files/dashboard.json").read_text())
    return {
        panel["title"]: [target["expr"] for target in panel["targets"]]
        for panel in dashboard["panels"]
    }


EXPRESSIONS = [(name, one["expr"]) for name, one in rules().items()] + [
    (t, expr) for t, all_ in panels().items() for expr in all_
]


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_what_is_asked_for_is_exported(name, expression):
    found = list(SELECTOR.finditer(expression))
    assert found, expression
    for selector in found:
        if selector["name"] in injectors():
            continue
        row = EXPORTED[selector["name"]]
        labels = {key.replace(".", "_"): values for key, values in row.labels.items()}
        for matcher in MATCHER.finditer(selector["matchers"] or ""):
            assert set(matcher["value"].split("|")) <= labels[matcher["label"]] | {""}, (
                name,
                matcher[0],
            )


def test_prometheus_can_read_them(tmp_path):
    """Its own parser does; where Go or the module cannot be had, the rest of this file has to
    do.
    """
    program = REPOSITORY / "tests/support/promql_parser"
    fetched = subprocess.run(
        ["go", "mod", "download"],
        cwd=program,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(
            f"github.com/prometheus/prometheus cannot be fetched: {fetched.stderr.strip()[:200]}"
        )
    binary = tmp_path / "promql"
    subprocess.run(
        ["go", "build", "-mod=readonly", "-o", binary, "."], cwd=program, check=True, timeout=280
    )
    lines = "\n".join(" ".join(expression.split()) for _, expression in EXPRESSIONS)
    read = subprocess.run(
        [binary], input=lines, capture_output=True, text=True, timeout=60, check=False
    )
    assert read.returncode == 0, read.stdout


def test_there_is_an_alert_for_what_the_page_advises():
    """Each metric of which telemetry.md says from which value on somebody should look."""
    watched = " ".join(one["expr"] for one in rules().values())
    for metric in (
        "capsign_invariant_violations_total",
        "capsign_refusals_total",
        "capsign_identities_total",
        "capsign_token_errors_total",
        "capsign_calls_total",
        "capsign_unknowns_total",
        "capsign_timeouts_total",
        "capsign_journal_bytes",
        "capsign_certificate_remaining_seconds",
        "capsign_authority_remaining_seconds",
        "capsign_upstream_streams",
        "capsign_room_used_ratio",
        "capsign_store_time_to_full_seconds",
        "capsign_injector_ready",
        "capsign_injector_certificate_end_timestamp_seconds",
    ):
        assert metric in watched
    assert OUTCOMES  # the injector's own counters start at 0 too
    assert all(f'outcome="{one}"}} 0' in InjectorMetrics().text() for one in OUTCOMES)


def test_every_metric_has_a_panel_or_is_derived_from_one():
    shown = " ".join(expr for exprs in panels().values() for expr in exprs)
    missing = [
        row.name for row in CATALOGUE.values() if not any(name in shown for name in prometheus(row))
    ]
    # The rate of limited items is a reason of `capsign.calls`; the age of a queue is in the agents'
    # health.
    assert set(missing) <= {"capsign.rate_limited", "capsign.queue.age"}


def test_an_event_that_may_be_the_only_one_is_seen():
    """A process may count it before its first export; the series then begins above 0 and never
    grows.
    """
    for alert in (
        "CapsignInvariantViolated",
        "CapsignHandleStolen",
        "CapsignTokenMisplaced",
        "CapsignKeyMissing",
    ):
        expression = rules()[alert]["expr"]
        assert "increase(" in expression
        assert "> 0 unless" in expression
        assert expression.endswith("offset 10m)")


def test_bounds_follow_the_values():
    text = manifests(
        {"monitoring": {"rules": {"enabled": True}}, "agent": {"journalMaxBytes": 4_194_304}}
    )
    (document,) = [one for path, one in text.items() if path.endswith("monitoring/rules.yaml")]
    assert "capsign_journal_bytes > 2097152" in document
