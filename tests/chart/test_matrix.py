"""Every values file in `values/` makes a release that a cluster takes, whose programs can read what
they are given.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from capsign_adapter import config
from capsign_adapter.decide.policy_load import parse_policy
from capsign_injector import settings
from support import chart

FILES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
OTHERS = {"cert-manager.io", "monitoring.coreos.com"}
"""API groups whose schemas are not Kubernetes' own."""

pytestmark = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def values_in(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text()) or {}


@functools.cache
def validated(text: str, version: str) -> None:
    """Most objects are the same in many files: once is enough."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("version", ["1.35", "1.36", "1.37"])
def test_objects_are_what_the_api_takes(file: Path, version: str) -> None:
    rendered = chart.objects(values_in(file))
    assert rendered
    for each in rendered:
        if each["apiVersion"].partition("/")[0] not in OTHERS:
            validated(json.dumps(each), version)


def test_pods_pass_restricted(file: Path) -> None:
    for name, spec in chart.pod_specs(chart.objects(values_in(file))):
        assert chart.unrestricted(spec) == [], name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"memory", "ephemeral-storage"} <= container["resources"]["limits"].keys()


def test_mounts_name_volumes_that_are_there(file: Path) -> None:
    for name, spec in chart.pod_specs(chart.objects(values_in(file))):
        volumes = [volume["name"] for volume in spec.get("volumes", [])]
        assert len(volumes) == len(set(volumes)), name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(volumes), (
                name
            )


def test_programs_read_what_is_rendered(file: Path, tmp_path: Path) -> None:
    given = values_in(file)
    by_name = {
        each["metadata"]["name"]: each["data"]
        for each in chart.objects(given)
        if each["kind"] == "ConfigMap" and "data" in each
    }
    full = next(name for name in by_name if name.endswith("-adapter")).removesuffix("-adapter")
    toml = tmp_path / "adapter.toml"
    toml.write_text(by_name[f"{full}-adapter"]["adapter.toml"])
    loaded = config.load(toml, {})
    trust_domain = given.get("trustDomain", "cluster.local")
    if f"{full}-policy" in by_name:
        assert (
            parse_policy(by_name[f"{full}-policy"]["policy.yaml"].encode()).trust_domain
            == trust_domain
        )
        assert loaded.policy == Path("/etc/capsign/policy/policy.yaml")
    # Without the injector too: `capsign inject --settings` reads it then.
    injector = settings.parse(
        by_name[f"{full}-injector"]["settings.yaml"].encode(), "settings.yaml"
    )
    assert injector.adapter.server_name in loaded.tls.names, (
        "agents ask for a name that the certificate does not carry"
    )
    assert loaded.identity is not None
    assert loaded.identity.kubernetes is not None
    assert injector.audience == loaded.identity.kubernetes.audience
    assert injector.trust_domain == trust_domain


def test_rendering_twice_gives_the_same_bytes(file: Path) -> None:
    again = helm_python.Chart.load(chart.CHART).render(
        values_in(file), name=chart.RELEASE, namespace=chart.NAMESPACE
    )
    assert chart.manifests(values_in(file)) == again


def test_lint_has_no_warning(file: Path) -> None:
    report = helm_python.lint(chart.CHART, values_in(file), strict=True, namespace=chart.NAMESPACE)
    assert [message["error"] for message in report["messages"] if message["severity"] > 1] == []
    assert report["errors"] == []
