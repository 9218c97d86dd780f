"""Values that look like something else to YAML, to Go's templates or to Kubernetes stay what they
are: text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from capsign_injector import settings
from support import chart

LIKE_NUMBERS_AND_TRUTH = ("123", "1e3", "0x1f", "no", "on", "true", "null")
"""All of them are names that Kubernetes takes."""

TEXTS = {
    "name",
    "namespace",
    "secretName",
    "claimName",
    "storageClassName",
    "priorityClassName",
    "key",
    "path",
    "mountPath",
}
TEXTS |= {"image", "reference", "storage", "value", "trust_domain", "kubernetes.io/metadata.name"}
"""Fields in which a number or a truth value would be refused by the API server, long after the
values were.
"""


def named(name: str) -> dict[str, Any]:
    """Values with that name everywhere where one may be given."""
    adapter = {
        "token": {
            "type": "library",
            "library": {"path": "/x.so"},
            "pinSecret": {"name": name, "key": name},
        },
        "store": {
            "type": "postgresql",
            "postgresql": {
                "url": "postgresql://u@h/d",
                "passwordSecret": {"name": name, "key": name},
                "caSecret": {"name": name, "key": name},
            },
        },
        "operatorAuthority": {"configMap": name, "key": name},
        "priorityClassName": name,
        "podLabels": {"a": name},
        "extraEnv": [{"name": "A", "value": name}],
    }
    return {
        "fullnameOverride": "capsign",
        "adapter": adapter,
        "commonLabels": {"b": name},
        "imagePullSecrets": [{"name": name}],
        "policy": {"existingConfigMap": {"name": name, "key": name}},
        "injector": {
            "priorityClassName": name,
            "webhook": {"excludedNamespaces": [name]},
            "certificate": {"source": "cert-manager", "issuerRef": {"name": name}},
        },
        "agent": {
            "imagePullSecrets": [name],
            "profiles": {"default": {}, name: {"grants": [name], "namespaces": [name]}},
        },
        "test": {"image": {"repository": "12", "tag": "34"}, "purpose": name},
        "trustDomain": name,
    }


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, path)
    else:
        yield path, value


def not_text(rendered: list[chart.Object]) -> list[tuple[str, tuple[str, ...], Any]]:
    """Where a field for text, a label or an annotation holds something else."""
    return [
        (each["kind"], path, value)
        for each in rendered
        for path, value in leaves(each)
        if not isinstance(value, str)
        and (
            path[-1] in TEXTS
            or {"labels", "annotations", "matchLabels"} & set(path)
            or not all(isinstance(key, str) for key in path)
        )
        and path[-2:] != ("port", "name")
    ]


@pytest.mark.parametrize("name", LIKE_NUMBERS_AND_TRUTH)
def test_a_name_stays_a_name(name: str) -> None:
    rendered = chart.objects(named(name), name, name)
    assert not_text(rendered) == []
    given = chart.one(rendered, "ConfigMap", "capsign-injector")["data"]["settings.yaml"]
    read = settings.parse(given.encode(), "settings.yaml")
    assert (read.trust_domain, read.server.namespace) == (name, name)
    assert read.profiles[name].grants == (name,)
    assert not_text(chart.objects({"test": {"namespace": name}})) == []


@pytest.mark.parametrize("name", LIKE_NUMBERS_AND_TRUTH)
def test_the_trial_is_well_in_any_namespace(name: str) -> None:
    values = {"adapter": {"persistence": {"storageClass": name}}, "trustDomain": name}
    rendered = chart.objects(values, namespace=name)
    assert not_text(rendered) == []
    policy = chart.one(rendered, "ConfigMap", "capsign-policy")["data"]["policy.yaml"]
    assert yaml.safe_load(policy)["trust_domain"] == name


HOSTILE = (
    "{{ .Release.Name }}",
    "x\n  evil: y",
    "a: b",
    "- a",
    "{a: b}",
    "x # y",
    "'\"",
    "$(HOME)",
    "\u2028evil: y",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_free_text_is_neither_a_template_nor_structure(text: str) -> None:
    values = {
        "adapter": {
            "podAnnotations": {"a": text},
            "extraEnv": [{"name": "A", "value": text}],
            "serviceAccountAnnotations": {"a": text},
            "service": {"annotations": {"a": text}},
        },
        "injector": {"podAnnotations": {"a": text}, "extraEnv": [{"name": "A", "value": text}]},
        "test": {"purpose": text, "command": [text]},
    }
    changed = json.dumps(chart.objects({}, "capsign", "a")).count(json.dumps(text))
    assert json.dumps(chart.objects(values, "capsign", "a")).count(json.dumps(text)) == changed + 10
    assert len(chart.objects(values)) == len(chart.objects({}))


def test_a_path_in_a_flow_mapping_adds_no_key_to_it() -> None:
    """`{name: pkcs11, mountPath: /opt/x, subPath: y, readOnly: true}` came of a path with a comma
    in it.
    """
    place = "/opt/x, subPath: y"
    library = {"path": f"{place}/lib.so", "image": {"reference": "r/i:1", "mountPath": place}}
    values = {
        "adapter": {"token": {"type": "library", "library": library, "pinSecret": {"name": "pin"}}}
    }
    (container,) = chart.one(chart.objects(values), "StatefulSet", "capsign-adapter")["spec"][
        "template"
    ]["spec"]["containers"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "pkcs11"]
    assert mount == {"name": "pkcs11", "mountPath": place, "readOnly": True}


def test_a_pod_may_have_another_value_for_a_common_label() -> None:
    """The same key twice in a mapping is not YAML."""
    text = chart.manifests(
        {"commonLabels": {"team": "a", "tier": "x"}, "adapter": {"podLabels": {"team": "b"}}}
    )
    manifest = text["capsign/templates/adapter/workload.yaml"]
    labels = yaml.safe_load(manifest)["spec"]["template"]["metadata"]["labels"]
    assert (labels["team"], labels["tier"]) == ("b", "x")
    assert manifest.count("team:") == 2


def test_a_collector_with_an_address_of_its_own() -> None:
    """Of `[fd00::5]:4317` the policy opened port 5."""
    rendered = chart.objects({"telemetry": {"otlpEndpoint": "http://[fd00::5]:4318"}})
    ports = [
        rule["ports"][0]["port"]
        for rule in chart.one(rendered, "NetworkPolicy", "capsign-adapter")["spec"]["egress"]
    ]
    assert ports[-1] == 4318


def test_the_injector_starts_in_a_namespace_with_a_long_name() -> None:
    rendered = chart.objects({}, "capsign", "n" * 63)
    settings.parse(
        chart.one(rendered, "ConfigMap", "capsign-injector")["data"]["settings.yaml"].encode(),
        "settings.yaml",
    )
