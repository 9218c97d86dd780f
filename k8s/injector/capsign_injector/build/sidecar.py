"""The agent's container, a native sidecar. Pure.

It states every field that the API server would default, so that a pod that is sent again shows no
difference.
"""

from __future__ import annotations

from typing import Any

from capsign_injector.build import environment, volumes
from capsign_injector.build.resources import Resources
from capsign_injector.names import AGENT, STATE
from capsign_injector.read.annotations import Choices
from capsign_injector.settings import Settings


def container(
    settings: Settings, choices: Choices, config: str, resources: Resources, sockets: int
) -> dict[str, Any]:
    """The agent's container. A native sidecar (KEP-753) starts before and stops after the
    containers of the pod, and does not keep a Job running. It has no preStop hook: on SIGTERM the
    agent delivers its records.
    """
    return {
        "name": AGENT,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "env": environment.variables(settings, choices, config),
        **_probes(gate_readiness=choices.profile.gate_readiness),
        "resources": resources.requirements(),
        "securityContext": _security_context(settings),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": volumes.agent_mounts(sockets),
    }


def _probes(*, gate_readiness: bool) -> dict[str, Any]:
    live = _probe("--live", period=10, failures=3)
    return {
        "startupProbe": _probe(period=1, failures=120),
        # One that is frozen is made anew; one that only finds no adapter would gain nothing by it.
        # A frozen one hears no signal, so the pod's grace period, which may be an hour, is not
        # waited for. Its journal stays.
        "livenessProbe": {**live, "terminationGracePeriodSeconds": 5},
        # A sidecar's readiness is its pod's: by default an outage of the adapter takes no pod out
        # of its Services (0029).
        **({"readinessProbe": _probe(period=5, failures=2)} if gate_readiness else {}),
    }


def _security_context(settings: Settings) -> dict[str, Any]:
    """Nothing is inherited from what the pod states for all its containers."""
    user, group = settings.run_as_user, settings.run_as_group
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        **({"runAsGroup": group} if group is not None else {}),
        "runAsNonRoot": True,
        **({"runAsUser": user} if user is not None else {}),
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _probe(*options: str, period: int, failures: int) -> dict[str, Any]:
    command = [
        "/usr/bin/python3",
        "-I",
        "-S",
        "/opt/capsign/probe.py",
        *options,
        f"{STATE}/health.sock.probe",
    ]
    return {
        "exec": {"command": command},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "successThreshold": 1,
        "failureThreshold": failures,
    }
