"""With the standard variables all of it is exported: an application's trace goes on in agent and
adapter, and both are counted.

The application uses OpenTelemetry's own SDK, as the lock has it, and so the flags that this SDK
sets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from capsign_wire.instruments import Kind
from capsign_wire.metric_catalogue import CATALOGUE
from support.otlp_receiver import receiving

pytestmark = pytest.mark.system

AGENT, ADAPTER = "capsign-agent", "capsign-adapter"
APPLICATION = Path(__file__).parents[1] / "support/traced_app.py"


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
    return ran.stdout


def dev(command, directory, **environ):
    return json.loads(
        run(
            sys.executable,
            "-m",
            "capsign_cli",
            "dev",
            command,
            "--dir",
            directory,
            "-o",
            "json",
            **environ,
        )
    )


@pytest.fixture(scope="module")
def received(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("otel"))
    with receiving() as (endpoint, received):
        state = dev(
            "up",
            directory,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        )
        try:
            socket = state["sockets"]["app"]
            run(
                sys.executable,
                str(APPLICATION),
                CAPSIGN_SOCKET=socket,
                OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            )
        finally:
            dev("down", directory)
        yield received


def trace_of(received, name):
    """The spans of an application's trace: its own, and those that continue it in agent and
    adapter.
    """
    (app,) = [one for one in received.of("app") if one.span.name == name]
    (agent,) = [one for one in received.of(AGENT) if one.trace == app.trace]
    (adapter,) = [one for one in received.of(ADAPTER) if one.trace == app.trace]
    return app, agent, adapter


@pytest.mark.parametrize(("name", "method"), [("streamed", "SignStream"), ("unary", "Sign")])
def test_one_trace_goes_through_application_agent_and_adapter(received, name, method):
    """The SDK sets the flags `03` (level 2: sampled, and a random trace id); `01` was demanded, and
    all tracing was dead.
    """
    app, agent, adapter = trace_of(received, name)
    assert agent.parent == app.id
    assert adapter.parent == agent.id
    common = {
        "rpc.system.name": "grpc",
        "capsign.algorithm": "ES256",
        "capsign.items": 1,
        "capsign.outcome": "done",
    }
    assert agent.attributes == {**common, "rpc.method": f"capsign.agent.v1.SigningService/{method}"}
    assert adapter.attributes == {**common, "rpc.method": "capsign.adapter.v1.SigningService/Sign"}


def test_a_refusal_is_on_its_spans_and_is_no_error_of_the_server(received):
    _, *spans = trace_of(received, "refused")
    for one in spans:
        assert one.attributes["capsign.outcome"] == "refused"
        assert one.attributes["capsign.reason"] == "INTENT_CONFLICT"
        assert one.attributes["capsign.items.failed"] == 1
        assert "error.type" not in one.attributes
        assert one.span.status.code == 0


def test_a_batch_of_many_traces_is_linked_with_all_of_them(received):
    """Each application span is the parent of an agent's span or one of its links; and so are the
    agent's for the adapter.
    """
    many = {(one.trace, one.id) for one in received.of("app") if one.span.name == "many"}
    agents = received.of(AGENT)
    reached = {(one.trace, one.parent) for one in agents} | {
        link for one in agents for link in one.links
    }
    assert many <= reached
    assert any(one.links for one in agents), "they were coalesced"
    served = received.of(ADAPTER)
    reached = {(one.trace, one.parent) for one in served} | {
        link for one in served for link in one.links
    }
    assert {(one.trace, one.id) for one in agents} <= reached


def timed(received):
    """Durations: the agent takes the time of a message, of which each has a span here, the adapter
    that of an item.
    """
    return {AGENT: len(received.of(AGENT)), ADAPTER: 27}


@pytest.mark.parametrize("process", [AGENT, ADAPTER])
def test_calls_are_counted_on_both_sides(received, process):
    counted = {
        tuple(labels.values()): int(point.as_int)
        for labels, point in received.points(process, "capsign.calls")
    }
    assert {labels: value for labels, value in counted.items() if value} == {
        ("done", "NONE"): 26,
        ("refused", "INTENT_CONFLICT"): 1,
    }
    assert (
        sum(point.count for _, point in received.points(process, "capsign.call.duration"))
        == timed(received)[process]
    )
    assert not any(
        point.as_int for _, point in received.points(process, "capsign.invariant.violations")
    )


@pytest.mark.parametrize("process", [AGENT, ADAPTER])
@pytest.mark.parametrize(
    "counter", [name for name, row in CATALOGUE.items() if row.kind is Kind.COUNTER]
)
def test_every_series_of_a_counter_is_exported_from_the_start(received, process, counter):
    exported = {
        tuple(labels[key] for key in CATALOGUE[counter].labels)
        for labels, _ in received.points(process, counter)
    }
    assert exported == set(CATALOGUE[counter].series())


@pytest.mark.parametrize("process", [AGENT, ADAPTER])
def test_a_theft_would_be_seen_to_grow_from_nought(received, process):
    stolen = [
        point.as_int
        for labels, point in received.points(process, "capsign.refusals")
        if labels["reason"] == "HANDLE_STOLEN"
    ]
    assert stolen == [0]


def test_what_the_agent_asks_of_adapters_is_measured_too(received):
    asked = {
        (labels["rpc.method"], labels["rpc.response.status_code"])
        for labels, _ in received.points(AGENT, "rpc.client.call.duration")
    }
    assert ("capsign.adapter.v1.CapabilityService/IssueHandles", "OK") in asked
    assert ("capsign.adapter.v1.EvidenceService/SubmitAudit", "OK") in asked


def test_rpcs_are_measured_as_the_convention_says(received):
    agent = [
        (labels, point.count)
        for labels, point in received.points(AGENT, "rpc.server.call.duration")
    ]
    sign = {
        "rpc.system.name": "grpc",
        "rpc.method": "capsign.agent.v1.SigningService/Sign",
        "rpc.response.status_code": "OK",
    }
    assert [count for labels, count in agent if labels == sign] == [1]
    methods = {
        labels["rpc.method"] for labels, _ in received.points(ADAPTER, "rpc.server.call.duration")
    }
    assert {
        "capsign.adapter.v1.CapabilityService/IssueHandles",
        "capsign.adapter.v1.SigningService/Sign",
    } <= methods


def test_each_process_has_an_id_of_its_own(received):
    ids = {}
    for service in (AGENT, ADAPTER):
        resource = received.resources[service]
        ids[service] = str(uuid.UUID(resource["service.instance.id"]))
        assert {one.resource["service.instance.id"] for one in received.of(service)} == {
            ids[service]
        }
        assert resource["deployment.environment.name"] == "test"
    assert len(set(ids.values())) == len(ids)
