"""What platform teams ask for first: an adapter elsewhere, the injector alone, their users, their
networks, their identities.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from capsign_adapter import config as adapter_config
from capsign_agent import config as agent_config
from capsign_injector import settings
from capsign_injector.inject import inject
from support import chart
from support.ca import Authority
from support.fake_log import FakeLog

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "labels": {"capsign.dev/inject": "true"}},
    "spec": {"containers": [{"name": "app", "image": "a"}]},
}
PEM = Authority().certificate.decode()
ELSEWHERE: dict[str, Any] = {
    "adapter": {"enabled": False},
    "agent": {
        "adapter": {
            "targets": ["capsign.example:443"],
            "enrolmentTargets": ["capsign.example:7444", "[fd00::1]:7445"],
            "serverName": "capsign.example",
        },
        "trustBundle": PEM,
    },
}
SPIRE = {"agent": {"identity": {"source": "workload-api", "csi": {"driver": "csi.spiffe.io"}}}}
CERT_MANAGER = {
    "agent": {
        "identity": {
            "source": "files",
            "csi": {
                "driver": "spiffe.csi.cert-manager.io",
                "attributes": {"spiffe.csi.cert-manager.io/fs-group": "65532"},
            },
        }
    }
}


def injected(
    values: dict[str, Any],
) -> tuple[settings.Settings, dict[str, Any], agent_config.Config]:
    """What these values make of a pod: the settings, its agent, and what the agent reads."""
    data = chart.one(chart.objects(values), "ConfigMap", "capsign-injector")["data"][
        "settings.yaml"
    ]
    read = settings.parse(data.encode(), "settings.yaml")
    once = inject(POD, "shop", read, PEM).pod
    assert inject(once, "shop", read, PEM).pod == once
    kubernetes_validate.validate(once, "1.37", strict=True)
    (agent,) = once["spec"]["initContainers"]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "agent.toml"
        file.write_text(agent["env"][0]["value"])
        return read, {**agent, "volumes": once["spec"]["volumes"]}, agent_config.load(file, {})


def test_agents_of_an_adapter_elsewhere_and_an_injector_without_one() -> None:
    rendered = chart.objects(ELSEWHERE)
    assert not [each for each in rendered if each["metadata"]["name"].startswith("capsign-adapter")]
    assert chart.one(rendered, "ConfigMap", "capsign-trust-bundle")["data"]["bundle.pem"] == PEM
    _, _, agent = injected(ELSEWHERE)
    assert agent.upstream.targets == ("capsign.example:443",)
    assert agent.upstream.server_name == "capsign.example"
    assert agent.identity.kubernetes is not None
    assert agent.identity.kubernetes.enrolment_targets == ("capsign.example:7444", "[fd00::1]:7445")
    egress = chart.one(rendered, "NetworkPolicy", "capsign-injector")["spec"]["egress"]
    assert [port["port"] for port in egress[-1]["ports"]] == [7444, 7445]
    for version in ("1.35", "1.37"):
        for each in rendered:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize(
    ("agent", "named"),
    [
        ({**ELSEWHERE["agent"], "trustBundle": ""}, "agent.trustBundle"),
        ({"trustBundle": PEM}, "agent.adapter.targets"),
        (
            {"trustBundle": PEM, "adapter": {"targets": ["a:1"], "serverName": "a"}},
            "agent.adapter.enrolmentTargets",
        ),
    ],
)
def test_what_is_missing_for_an_adapter_elsewhere_is_named(
    agent: dict[str, Any], named: str
) -> None:
    with pytest.raises(helm_python.HelmError, match=named.replace(".", r"\.")):
        chart.objects({"adapter": {"enabled": False}, "agent": agent})
    with pytest.raises(helm_python.HelmError, match="publishes its own"):
        chart.objects({"agent": {"trustBundle": PEM}})


def test_agents_demand_the_key_of_the_log_that_the_values_name() -> None:
    """A new pod remembers nothing: without it, it believes the first log that it is shown."""
    key = FakeLog().key.text()
    _, _, agent = injected({"agent": {"adapter": {"logKey": key}}})
    assert agent.log.key == key
    with pytest.raises(helm_python.HelmError, match="logKey"):
        chart.objects({"agent": {"adapter": {"logKey": key[:-1]}}})


@pytest.mark.parametrize("values", [SPIRE, CERT_MANAGER], ids=["SPIRE", "cert-manager"])
def test_identities_from_elsewhere_come_by_a_volume_of_the_agents_own(
    values: dict[str, Any],
) -> None:
    read, agent, given = injected(values)
    identity = values["agent"]["identity"]
    assert not read.needs_bundle
    assert given.identity.source == identity["source"]
    (volume,) = [each for each in agent["volumes"] if each["name"] == "capsign-token"]
    assert volume["csi"]["driver"] == identity["csi"]["driver"]
    assert volume["csi"]["readOnly"] is True
    assert not [each for each in agent["volumes"] if "projected" in each], (
        "no token that nobody needs"
    )
    with pytest.raises(helm_python.HelmError, match=r"agent\.identity\.csi\.driver"):
        chart.objects({"agent": {"identity": {"source": identity["source"]}}})


def test_users_of_the_namespaces_range() -> None:
    """OpenShift refuses a user that is not of the namespace's range, and gives one where none is
    named.
    """
    values = yaml.safe_load(
        (Path(__file__).parent / "values" / "uid-of-the-namespace.yaml").read_text()
    )
    for name, spec in chart.pod_specs(chart.objects(values)):
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & spec["securityContext"].keys(), name
        assert spec["securityContext"]["runAsNonRoot"] is True
    read, agent, _ = injected(values)
    assert not {"runAsUser", "runAsGroup"} & agent["securityContext"].keys()
    assert agent["readinessProbe"]["exec"] == agent["startupProbe"]["exec"]
    assert agent["env"][1:] == [
        {"name": "TZ", "value": "UTC"},
        {
            "name": "NODE",
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}},
        },
    ]
    assert read.harmless_host_paths == ("/srv/data",)
    admitted = inject(POD, "shop", read, PEM).pod
    admitted["spec"]["initContainers"][0]["securityContext"]["runAsUser"] = 1000660000
    assert inject(admitted, "shop", read, PEM).pod == admitted, (
        "what the cluster gave stays when the webhook is asked again"
    )


def test_a_claim_without_a_storage_class() -> None:
    claim = chart.one(
        chart.objects({"adapter": {"persistence": {"storageClass": "-"}}}),
        "PersistentVolumeClaim",
        DATA,
    )
    assert claim["spec"]["storageClassName"] == ""
    assert (
        "storageClassName"
        not in chart.one(chart.objects({}), "PersistentVolumeClaim", DATA)["spec"]
    )


DATA = "capsign-adapter-data"


def test_an_injector_on_its_nodes_network() -> None:
    """Where API servers reach no pod addresses (EKS with another CNI, say), a webhook must be on
    the node's.
    """
    given = {
        "injector": {
            "hostNetwork": True,
            "port": 9443,
            "healthPort": 9080,
            "webhook": {"failurePolicy": "Ignore"},
        }
    }
    rendered = chart.objects(given)
    spec = chart.one(rendered, "Deployment", "capsign-injector")["spec"]["template"]["spec"]
    assert (spec["hostNetwork"], spec["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    ports = {
        port["name"]: (port["containerPort"], port["hostPort"])
        for port in spec["containers"][0]["ports"]
    }
    assert ports == {"https": (9443, 9443), "health": (9080, 9080)}
    data = chart.one(rendered, "ConfigMap", "capsign-injector")["data"]["settings.yaml"]
    server = settings.parse(data.encode(), "settings.yaml").server
    assert (server.listen, server.health) == ("0.0.0.0:9443", "0.0.0.0:9080")
    (webhook,) = chart.one(
        rendered, "MutatingWebhookConfiguration", "capsign-injector-capsign-system"
    )["webhooks"]
    assert webhook["failurePolicy"] == "Ignore"
    with pytest.raises(helm_python.HelmError, match="are the same"):
        chart.objects({"injector": {"port": 8080}})


def test_a_priority_class_by_name() -> None:
    """A full cluster evicts what has none first: the adapter, or the webhook that pods wait for."""
    given = {
        "adapter": {"priorityClassName": "of-the-adapter"},
        "injector": {"priorityClassName": "of-the-injector"},
    }
    for values, names in (
        ({}, {"capsign-adapter": None, "capsign-injector": "system-cluster-critical"}),
        (given, {"capsign-adapter": "of-the-adapter", "capsign-injector": "of-the-injector"}),
    ):
        rendered = chart.objects(values)
        for kind, name in (("StatefulSet", "capsign-adapter"), ("Deployment", "capsign-injector")):
            spec = chart.one(rendered, kind, name)["spec"]["template"]["spec"]
            assert spec.get("priorityClassName") == names[name], name


def test_a_parent_chart_turns_it_on_and_off(tmp_path: Path) -> None:
    """The value that a `condition` looks at reaches this chart too, and was refused as unknown."""
    parent = tmp_path / "platform"
    (parent / "charts").mkdir(parents=True)
    dependency = {
        "name": "capsign",
        "version": chart.chart().version,
        "repository": "",
        "condition": "capsign.enabled",
    }
    about = {
        "apiVersion": "v2",
        "name": "platform",
        "version": "1.0.0",
        "dependencies": [dependency],
    }
    (parent / "Chart.yaml").write_text(yaml.safe_dump(about))
    (parent / "charts" / "capsign").symlink_to(chart.CHART)
    whole = helm_python.Chart.load(parent)
    on = whole.render({"capsign": {"enabled": True}, "global": {"x": 1}}, name="p", namespace="n")
    assert any("adapter/workload" in path for path in on)
    assert not whole.render({"capsign": {"enabled": False}}, name="p", namespace="n")


def test_every_process_has_a_liveness_that_a_frozen_one_fails() -> None:
    """A stopped adapter still took TCP connections, and a stopped agent had no probe at all: nobody
    restarted either.
    """
    rendered = chart.objects({})
    (adapter,) = chart.one(rendered, "StatefulSet", "capsign-adapter")["spec"]["template"]["spec"][
        "containers"
    ]
    assert adapter["livenessProbe"]["grpc"] == {"port": 7445, "service": "liveness"}
    assert adapter["readinessProbe"]["grpc"] == {"port": 7445}
    (injector,) = chart.one(rendered, "Deployment", "capsign-injector")["spec"]["template"]["spec"][
        "containers"
    ]
    assert injector["livenessProbe"]["httpGet"]["path"] == "/healthz"
    _, agent, _ = injected({})
    assert agent["livenessProbe"]["exec"]["command"][-2:] == [
        "--live",
        "/run/capsign/state/health.sock.probe",
    ]
    # What does not answer hears no signal: the pod's grace period, which may be an hour, would be
    # waited for in vain.
    probes = [adapter["livenessProbe"], injector["livenessProbe"], agent["livenessProbe"]]
    assert all(probe["terminationGracePeriodSeconds"] <= 10 for probe in probes)
    assert "readinessProbe" not in agent, (
        "an outage of the adapter would take every pod out of its Services"
    )


def test_a_profile_may_have_another_engine_for_the_applications_sockets() -> None:
    pytest.importorskip("pygrpc_native")
    for given, used in (("", "grpcio"), ("grpcio", "grpcio"), ("native", "native")):
        _, _, agent = injected({"agent": {"profiles": {"default": {"engine": given}}}})
        assert agent.front.engine == used
    with pytest.raises(helm_python.HelmError, match="engine"):
        chart.objects({"agent": {"profiles": {"default": {"engine": "tonic"}}}})


def test_pods_on_their_nodes_network_are_taken_by_the_adapter_too(tmp_path: Path) -> None:
    """`agent.allowHostNetwork` alone was not enough: on the way to an adapter on the same node, the
    node's address is another.
    """
    for allowed in (True, False):
        rendered = chart.objects({"agent": {"allowHostNetwork": allowed}})
        file = tmp_path / "adapter.toml"
        file.write_text(chart.one(rendered, "ConfigMap", "capsign-adapter")["data"]["adapter.toml"])
        identity = adapter_config.load(file, {}).identity
        assert identity is not None
        assert identity.kubernetes is not None
        assert identity.kubernetes.host_network_pods is allowed


def test_public_keys_are_off_unless_they_are_asked_for() -> None:
    assert "7447" not in yaml.dump(chart.objects({}))


@pytest.mark.parametrize("peers", [[], [{"ipBlock": {"cidr": "203.0.113.0/24"}}]])
def test_public_keys_have_a_service_of_their_own_and_nothing_else_is_at_it(
    peers: list[Any], tmp_path: Path
) -> None:
    public = {"enabled": True, "port": 8443, "service": {"type": "LoadBalancer"}}
    values = {"adapter": {"publicKeys": public}, "networkPolicy": {"publicKeysFrom": peers}}
    rendered = chart.objects(values)
    service = chart.one(rendered, "Service", "capsign-adapter-public")["spec"]
    assert (service["type"], len(service["ports"])) == ("LoadBalancer", 1)
    assert service["ports"][0]["port"] == 8443
    pod = chart.one(rendered, "StatefulSet", "capsign-adapter")["spec"]["template"]["spec"]
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports[service["ports"][0]["targetPort"]] == 7447
    assert all(
        port["targetPort"] != "public"
        for port in chart.one(rendered, "Service", "capsign-adapter")["spec"]["ports"]
    )
    file = tmp_path / "adapter.toml"
    file.write_text(chart.one(rendered, "ConfigMap", "capsign-adapter")["data"]["adapter.toml"])
    config = adapter_config.load(file, {})
    assert config.listen.public_address == "0.0.0.0:7447"
    assert "capsign-adapter-public.capsign-system.svc" in config.tls.names
    policy = chart.one(rendered, "NetworkPolicy", "capsign-adapter")["spec"]["ingress"]
    (rule,) = [each for each in policy if {"port": "public", "protocol": "TCP"} in each["ports"]]
    assert rule.get("from", []) == peers
    for each in rendered:
        kubernetes_validate.validate(each, "1.37", strict=True)
