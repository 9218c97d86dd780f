"""Wrong values are refused before anything is installed, and the message names the value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import helm_python
import pytest
from capsign_adapter import config
from capsign_injector import settings
from support import chart

LIBRARY = {"type": "library", "library": {"path": "/x.so"}, "pinSecret": {"name": "pin"}}

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt section": ({"adaptr": {}}, "adaptr"),
    "a misspelt value": ({"adapter": {"replica": 1}}, "replica"),
    "a misspelt value deep inside": (
        {"adapter": {"store": {"postgresql": {"passwordSecrets": {}}}}},
        "passwordSecrets",
    ),
    "a number as text": ({"adapter": {"replicas": "one"}}, "/adapter/replicas"),
    "fewer than none": ({"injector": {"replicas": -1}}, "/injector/replicas"),
    "two replicas on SQLite": (
        {"adapter": {"replicas": 2}},
        "SQLite is one file and serves one replica",
    ),
    "an unknown store": ({"adapter": {"store": {"type": "mysql"}}}, "/adapter/store/type"),
    "PostgreSQL without a URL": (
        {"adapter": {"store": {"type": "postgresql"}}},
        "/adapter/store/postgresql/url",
    ),
    "a password in a URL": (
        {
            "adapter": {
                "store": {"type": "postgresql", "postgresql": {"url": "postgresql://a:b@host/db"}}
            }
        },
        "/adapter/store/postgresql/url",
    ),
    "an unknown token": ({"adapter": {"token": {"type": "tpm"}}}, "/adapter/token/type"),
    "a library without a path": (
        {"adapter": {"token": {**LIBRARY, "library": {}}}},
        "/adapter/token/library/path",
    ),
    "a library without a PIN": (
        {"adapter": {"token": {**LIBRARY, "pinSecret": {}}}},
        "/adapter/token/pinSecret/name",
    ),
    "a relative path": (
        {"adapter": {"token": {**LIBRARY, "library": {"path": "x.so"}}}},
        "/adapter/token/library/path",
    ),
    "a PIN among the values": ({"adapter": {"token": {"pin": "1234"}}}, "pin"),
    "half a digest": ({"agent": {"image": {"digest": "sha256:12"}}}, "/agent/image/digest"),
    "an unknown pull policy": (
        {"adapter": {"image": {"pullPolicy": "Sometimes"}}},
        "/adapter/image/pullPolicy",
    ),
    "a trust domain with a path": ({"trustDomain": "example.com/x"}, "/trustDomain"),
    "no default profile": ({"agent": {"profiles": {"default": None, "other": {}}}}, "default"),
    "a profile that lets too much be set": (
        {"agent": {"profiles": {"default": {"maySet": ["grants"]}}}},
        "/agent/profiles/default/maySet",
    ),
    "a quantity of nothing known": (
        {"agent": {"profiles": {"big": {"memoryLimit": "1 GB"}}}},
        "/agent/profiles/big/memoryLimit",
    ),
    "an unknown log level": (
        {"agent": {"profiles": {"default": {"logLevel": "loud"}}}},
        "/agent/profiles/default/logLevel",
    ),
    "an unknown source of the certificate": (
        {"injector": {"certificate": {"source": "acme"}}},
        "/injector/certificate/source",
    ),
    "a certificate that is not given": (
        {"injector": {"certificate": {"source": "secret"}}},
        "/injector/certificate/existingSecret",
    ),
    "a webhook that waits a minute": (
        {"injector": {"webhook": {"timeoutSeconds": 60}}},
        "/injector/webhook/timeoutSeconds",
    ),
    "an unknown action": (
        {"admissionPolicy": {"validationActions": ["Refuse"]}},
        "/admissionPolicy/validationActions",
    ),
    "no action": (
        {"admissionPolicy": {"validationActions": []}},
        "/admissionPolicy/validationActions",
    ),
    "a network without a length": (
        {"networkPolicy": {"apiServer": {"cidr": "10.0.0.1"}}},
        "/networkPolicy/apiServer/cidr",
    ),
    "a port that is none": (
        {"networkPolicy": {"postgresql": {"port": 70000}}},
        "/networkPolicy/postgresql/port",
    ),
    "a target without a port": (
        {"agent": {"adapter": {"targets": ["a"]}}},
        "/agent/adapter/targets/0",
    ),
    "a target of a port that is none": (
        {"agent": {"adapter": {"targets": ["a:99999"]}}},
        "/agent/adapter/targets/0",
    ),
    "a target of port 0": (
        {"agent": {"adapter": {"enrolmentTargets": ["a:0"]}}},
        "/agent/adapter/enrolmentTargets/0",
    ),
    "a misspelt resource": ({"adapter": {"resources": {"limits": {"memroy": "1Gi"}}}}, "memroy"),
    "a misspelt toleration": (
        {"adapter": {"tolerations": [{"keys": "a"}]}},
        "/adapter/tolerations/0",
    ),
    "a workload that is no identity": (
        {"policy": {"sample": {"workloads": ["shop/orders"]}}},
        "/policy/sample/workloads/0",
    ),
    "a mode of access that writes nothing": (
        {"adapter": {"persistence": {"accessModes": ["ReadOnlyMany"]}}},
        "/adapter/persistence/accessModes",
    ),
    "an API server without TLS": (
        {"adapter": {"identity": {"apiServer": "http://api"}}},
        "/adapter/identity/apiServer",
    ),
    "root": ({"podSecurity": {"runAsUser": 0}}, "/podSecurity/runAsUser"),
    "a share above one": (
        {"telemetry": {"tracesSampleRatio": "1.5"}},
        "/telemetry/tracesSampleRatio",
    ),
    "no name of a namespace": (
        {"agent": {"profiles": {"default": {"namespaces": ["a.b"]}}}},
        "/agent/profiles/default/namespaces/0",
    ),
    "a namespace with too long a name": (
        {"injector": {"webhook": {"excludedNamespaces": ["n" * 64]}}},
        "/injector/webhook/excludedNamespaces/0",
    ),
    "policy as a mapping": ({"policy": {"document": {"version": 1}}}, "/policy/document"),
}

TOGETHER: dict[str, tuple[dict[str, Any], str]] = {
    "SoftHSM on a volume of one node": (
        {
            "adapter": {
                "replicas": 2,
                "store": {"type": "postgresql", "postgresql": {"url": "postgresql://u@h/d"}},
            }
        },
        "adapter.replicas is 2, but a SoftHSM token is a directory on a volume that one "
        "node mounts. Set adapter.token.type",
    ),
    "a library outside its image": (
        {
            "adapter": {
                "token": {
                    **LIBRARY,
                    "library": {"path": "/usr/x.so", "image": {"reference": "r/i:1"}},
                }
            }
        },
        "adapter.token.library.path is /usr/x.so, which is not below "
        "adapter.token.library.image.mountPath",
    ),
    "two policies": (
        {"policy": {"document": "trust_domain: cluster.local", "existingConfigMap": {"name": "p"}}},
        "policy.document and policy.existingConfigMap.name are both set. Keep one.",
    ),
    "another trust domain": (
        {"policy": {"document": "trust_domain: other.example"}},
        "trustDomain is cluster.local, but policy.document says trust_domain: "
        "other.example. Make them equal.",
    ),
    "a policy that is no YAML": ({"policy": {"document": "a: [b"}}, "policy.document is not YAML."),
    "a password beside a URL": (
        {
            "adapter": {
                "store": {
                    "type": "postgresql",
                    "postgresql": {"url": "postgresql://u@h/d?sslmode=x&password=p"},
                }
            }
        },
        "adapter.store.postgresql.url has a password in it",
    ),
    "cold files that no witness speaks for": (
        {"adapter": {"log": {"retention": {"existingClaim": "evidence"}}}},
        "adapter.log.retention.unwitnessed",
    ),
    "cold files and witnesses of which none is demanded": (
        {
            "adapter": {
                "log": {"retention": {"existingClaim": "evidence"}},
                "witnessPolicy": "quorum none\n",
            }
        },
        "adapter.log.retention.unwitnessed",
    ),
    "a name that no Service may have": (
        {"fullnameOverride": "4-eyes"},
        "Objects would be called 4-eyes-…",
    ),
    "a common label that is the chart's": (
        {"commonLabels": {"app.kubernetes.io/name": "x"}},
        "commonLabels sets app.kubernetes.io/name, which the chart sets itself. Remove it.",
    ),
    "a pod's label that is in the selector": (
        {"injector": {"podLabels": {"app.kubernetes.io/component": "x"}}},
        "injector.podLabels sets app.kubernetes.io/component",
    ),
    "an annotation that would hide a change": (
        {"adapter": {"podAnnotations": {"checksum/config": "x"}}},
        "adapter.podAnnotations sets checksum/config",
    ),
    "a volume that would go with the release": (
        {"adapter": {"persistence": {"annotations": {"helm.sh/resource-policy": "delete"}}}},
        "adapter.persistence.annotations sets helm.sh/resource-policy",
    ),
    "a common label that would have pods injected": (
        {"commonLabels": {"capsign.dev/inject": "true"}},
        "commonLabels sets capsign.dev/inject",
    ),
    "a test where nothing is injected": (
        {"test": {"namespace": "capsign-system"}},
        "helm test would run in the namespace capsign-system, whose pods are never injected.",
    ),
    "a tag of no image": (
        {"test": {"image": {"tag": "3"}}},
        "test.image has a tag or a digest and no repository",
    ),
    "only injected, by nobody": (
        {"admissionPolicy": {"onlyInjected": True}, "injector": {"enabled": False}},
        "admissionPolicy.onlyInjected needs a webhook that sees every labelled pod.",
    ),
    "a rotation that looks too late": (
        {"injector": {"certificate": {"propagationSeconds": 20}}},
        "injector.certificate.lookSeconds is 30",
    ),
    "an authority that ends before its work": (
        {"adapter": {"identity": {"authorityTtlSeconds": 3600}}},
        "adapter.identity.authorityTtlSeconds is 3600",
    ),
}


def refusal_of(values: dict[str, Any]) -> str:
    with pytest.raises(helm_python.HelmError) as refused:
        chart.manifests(values)
    return str(refused.value)


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_named(case: str) -> None:
    values, named = WRONG[case]
    with pytest.raises(helm_python.HelmValuesError) as refused:
        chart.manifests(values)
    assert named in str(refused.value)


@pytest.mark.parametrize("case", TOGETHER)
def test_values_that_do_not_go_together_are_refused_in_a_sentence(case: str) -> None:
    values, sentence = TOGETHER[case]
    assert sentence in refusal_of(values)


def test_the_schema_is_strict_everywhere() -> None:
    """An object that takes any key would let a misspelt value pass in silence."""
    schema = chart.chart().schema
    assert schema is not None
    free = [
        path
        for path, node in nodes(schema, "")
        if node.get("type") == "object" and "additionalProperties" not in node
    ]
    # What Kubernetes itself describes is checked by the API server; Helm's `global` is not ours.
    assert set(free) == {"/properties/global", "/definitions/native", "/definitions/namedNative"}


def nodes(node: Any, path: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    if isinstance(node, dict):
        found.append((path, node))
        for key, value in node.items():
            found += nodes(value, f"{path}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            found += nodes(value, f"{path}/{index}")
    return found


def defaults(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from defaults(value, (*path, key))


def test_a_value_that_is_named_and_not_given_takes_nothing_away(tmp_path: Path) -> None:
    """To Helm `replicas:` with nothing behind it removes the default. It came out as no replica,
    `podAddressCheck:` as no check, `repository:` as the image `%!s(<nil>):0.1.0`. Where nothing is
    a value of its own, both programs read what is rendered.
    """
    free = {}
    for path in defaults(chart.chart().values):
        values: Any = None
        for key in reversed(path):
            values = {key: values}
        with suppress(helm_python.HelmValuesError):
            free[path] = chart.objects(values)
    for path, rendered in free.items():
        assert "nil" not in json.dumps(rendered), path
        toml = tmp_path / "adapter.toml"
        toml.write_text(chart.one(rendered, "ConfigMap", "capsign-adapter")["data"]["adapter.toml"])
        config.load(toml, {})
        settings.parse(
            chart.one(rendered, "ConfigMap", "capsign-injector")["data"]["settings.yaml"].encode(),
            str(path),
        )
    for path in (
        "adapter.replicas",
        "adapter.store.type",
        "admissionPolicy.enabled",
        "networkPolicy.enabled",
        "injector.replicas",
    ):
        assert tuple(path.split(".")) not in free
    for path in (
        "adapter.nodeSelector",
        "adapter.tolerations",
        "podSecurity.runAsUser",
        "adapter.resources.limits.memory",
    ):
        assert tuple(path.split(".")) in free


def test_every_default_is_in_the_schema() -> None:
    """A value that the schema does not know could not be set."""
    chart.manifests(chart.chart().values)
