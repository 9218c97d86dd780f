"""Manifests for tests: everything that Pod Security `restricted` demands, and no more than a test
has to say.
"""

from __future__ import annotations

import textwrap
from typing import Any

Thing = dict[str, Any]
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}


def namespace(name: str, **labels: str) -> Thing:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {**RESTRICTED, **labels}},
    }


def python(name: str, source: str, image: str, **more: Any) -> Thing:
    """A container that runs a few lines of Python."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["/usr/bin/python3", "-u", "-c", textwrap.dedent(source)],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **more,
    }


def pod_spec(*containers: Thing, **more: Any) -> Thing:
    return {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 5,
        "enableServiceLinks": False,
        "containers": list(containers),
        **more,
    }


def metadata(
    name: str, namespace: str, labels: dict[str, str] | None, annotations: dict[str, str] | None
) -> Thing:
    return {
        "name": name,
        "namespace": namespace,
        "labels": {"app": name, **(labels or {})},
        "annotations": annotations or {},
    }


def pod(
    name: str,
    namespace: str,
    spec: Thing,
    *,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> Thing:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(name, namespace, labels, annotations),
        "spec": spec,
    }


def job(
    name: str,
    namespace: str,
    spec: Thing,
    *,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> Thing:
    template = {
        "metadata": metadata(name, namespace, labels, annotations),
        "spec": {**spec, "restartPolicy": "Never"},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"backoffLimit": 0, "template": template},
    }


def replicated(
    kind: str,
    name: str,
    namespace: str,
    spec: Thing,
    *,
    replicas: int = 1,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    **more: Any,
) -> Thing:
    """A Deployment or a StatefulSet."""
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": metadata(name, namespace, labels, annotations), "spec": spec},
            **more,
        },
    }


def service(name: str, namespace: str, port: int, target: int, **more: Any) -> Thing:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"app": name},
            "ports": [{"port": port, "targetPort": target}],
            **more,
        },
    }
