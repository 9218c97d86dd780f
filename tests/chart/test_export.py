"""The export of evidence as the chart runs it: off unless asked for, with a reader's rights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from capsign_adapter import config
from capsign_cli.audit.export import export
from support import chart

VALUES: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent / "values/exporting.yaml").read_text()
)


def pod(values: dict[str, Any]) -> dict[str, Any]:
    deployment = chart.one(chart.objects(values), "Deployment", "capsign-export")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def test_nothing_is_exported_unless_it_is_asked_for() -> None:
    assert not [one for one in chart.objects({}) if one["metadata"]["name"] == "capsign-export"]


def test_its_arguments_are_those_of_the_command(tmp_path: Path) -> None:
    (container,) = pod(VALUES)["containers"]
    program, group, command, *arguments = container["command"]
    assert (program, group, command) == ("/opt/capsign/bin/capsign", "audit", "export")
    given = []
    for one in arguments:
        name, equals, value = one.partition("=")
        if value.startswith("/"):
            mount = [m for m in container["volumeMounts"] if value.startswith(m["mountPath"])]
            assert mount, f"{one} is on no volume"
            file = tmp_path / Path(value).name
            file.touch()
            value = str(file)
        given.append(f"{name}{equals}{value}")
    context = export.make_context("export", given)
    assert context.params["place"] == "https://capsign-adapter-public.capsign-system.svc:443"
    assert context.params["follow"] is True
    assert context.params["endpoint"] == VALUES["export"]["endpoint"]
    assert context.params["protocol"] == "http/protobuf"


def test_it_names_the_log_and_the_server_as_the_adapter_does(tmp_path: Path) -> None:
    rendered = chart.objects(VALUES)
    toml = tmp_path / "adapter.toml"
    toml.write_text(chart.one(rendered, "ConfigMap", "capsign-adapter")["data"]["adapter.toml"])
    adapter = config.load(toml, {})
    (container,) = pod(VALUES)["containers"]
    assert f"--origin={adapter.log.origin}" in container["command"]
    assert "capsign-adapter-public.capsign-system.svc" in adapter.tls.names


def test_it_has_no_password_no_pin_and_no_token_of_the_api() -> None:
    spec = pod(VALUES)
    assert spec["automountServiceAccountToken"] is False
    secrets = [v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v]
    assert secrets == ["capsign-reader"]
    (container,) = spec["containers"]
    from_secrets = [
        one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"] if "valueFrom" in one
    ]
    assert from_secrets == ["siem-headers"]
    accounts = chart.objects(VALUES)
    bound = [
        subject["name"]
        for one in accounts
        if one["kind"].endswith("RoleBinding")
        for subject in one["subjects"]
    ]
    assert "capsign-export" not in bound


def test_one_at_a_time_writes_its_position() -> None:
    deployment = chart.one(chart.objects(VALUES), "Deployment", "capsign-export")["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    claim = chart.one(chart.objects(VALUES), "PersistentVolumeClaim", "capsign-export")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize(
    ("endpoint", "protocol", "port"),
    [
        ("https://siem", "grpc", 4317),
        ("https://siem/x", "http/protobuf", 443),
        ("http://siem", "http/protobuf", 80),
        ("http://siem:4318/v1/logs", "http/protobuf", 4318),
    ],
)
def test_it_reaches_the_log_and_the_receiver_and_nobody_else(
    endpoint: str, protocol: str, port: int
) -> None:
    values = {**VALUES, "export": {**VALUES["export"], "endpoint": endpoint, "protocol": protocol}}
    rendered = chart.objects(values)
    policy = chart.one(rendered, "NetworkPolicy", "capsign-export")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    ports = [one["port"] for rule in policy["egress"] for one in rule["ports"]]
    assert ports == [53, 53, "public", port, 4317]
    adapter = chart.one(rendered, "NetworkPolicy", "capsign-adapter")["spec"]
    (public,) = [rule for rule in adapter["ingress"] if rule["ports"][0]["port"] == "public"]
    assert public["from"][-1]["podSelector"] == {
        "matchLabels": policy["podSelector"]["matchLabels"]
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"adapter": {"publicKeys": {"enabled": False}}}, "adapter.publicKeys.enabled"),
        ({"adapter": {"publicKeys": {"enabled": True}, "log": {"public": "hashes"}}}, "log.public"),
        ({"export": {**VALUES["export"], "endpoint": ""}}, "export.endpoint"),
        ({"export": {**VALUES["export"], "readerSecret": ""}}, "export.readerSecret"),
        ({"export": {**VALUES["export"], "endpoint": "https://ann:s3cret@siem"}}, "endpoint"),
        ({"adapter": {"reconcile": {"silenceSeconds": 120}}}, "adapter.reconcile"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises((helm_python.HelmValuesError, helm_python.HelmError)) as refused:
        chart.objects({**VALUES, **change})
    assert named in str(refused.value)


def test_the_times_of_reconciliation_are_the_values(tmp_path: Path) -> None:
    toml = tmp_path / "adapter.toml"
    for values, times in ((VALUES, (True, 600, 7200, 172800)), ({}, (True, 300, 3600, 86400))):
        data = chart.one(chart.objects(values), "ConfigMap", "capsign-adapter")["data"]
        toml.write_text(data["adapter.toml"])
        got = config.load(toml, {}).reconcile
        assert (
            got.enabled,
            got.report_seconds,
            got.silence_seconds,
            got.cut_tail_seconds,
        ) == times
