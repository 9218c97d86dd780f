"""The chart, rendered by Helm's own library, and what Pod Security `restricted` says about its
pods.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "k8s" / "chart"
RELEASE, NAMESPACE = "capsign", "capsign-system"

Object = dict[str, Any]


@functools.cache
def chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def manifests(
    values: dict[str, Any], name: str = RELEASE, namespace: str = NAMESPACE
) -> dict[str, str]:
    """Text by template. Raises helm_python.HelmError as `helm install` would."""
    return dict(_rendered(json.dumps(values), name, namespace))


@functools.cache
def _rendered(values: str, name: str, namespace: str) -> dict[str, str]:
    return chart().render(json.loads(values), name=name, namespace=namespace)


def objects(
    values: dict[str, Any], name: str = RELEASE, namespace: str = NAMESPACE
) -> list[Object]:
    """Every object, in no order that means something."""
    texts = manifests(values, name, namespace)
    return [
        one
        for path, text in texts.items()
        if path.endswith(".yaml")
        for one in yaml.load_all(text, Loader=yaml.CSafeLoader)
        if one
    ]


def one(rendered: list[Object], kind: str, name: str) -> Object:
    """The object of that kind and name; it is an error if there is not exactly one."""
    (found,) = [
        each for each in rendered if each["kind"] == kind and each["metadata"]["name"] == name
    ]
    return found


def pod_specs(rendered: list[Object]) -> Iterator[tuple[str, Object]]:
    for each in rendered:
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]
        elif "template" in each.get("spec", {}):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def unrestricted(spec: Object) -> list[str]:
    """What `restricted` (Pod Security Standards) forbids in this pod; empty: nothing."""
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    faults = [f"{key} is set" for key in ("hostPID", "hostIPC", "hostNetwork") if spec.get(key)]
    for volume in spec.get("volumes", []):
        faults += [
            f"volume {volume['name']} is a {kind}" for kind in volume.keys() - {"name"} - allowed
        ]
    pod = spec.get("securityContext", {})
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = container.get("securityContext", {})
        both = {**pod, **own}
        wanted = {
            "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is False,
            "privileged": not own.get("privileged"),
            "capabilities are not dropped": own.get("capabilities") == {"drop": ["ALL"]},
            "runAsNonRoot is not true": both.get("runAsNonRoot") is True,
            "runAsUser is root": both.get("runAsUser") != 0,
            "seccompProfile is not RuntimeDefault": both.get("seccompProfile", {}).get("type")
            in {"RuntimeDefault", "Localhost"},
            "a host port": not any(port.get("hostPort") for port in container.get("ports", [])),
        }
        faults += [f"{container['name']}: {fault}" for fault, good in wanted.items() if not good]
    return faults
