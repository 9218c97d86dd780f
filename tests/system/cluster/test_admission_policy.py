"""The rules that the API server itself keeps about pods that have an agent: no server of ours is
asked.

The pods are written by hand as `capsign inject` makes them, and nobody runs them: what counts is
whether they are taken.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from system.cluster.kit.cluster import until

NOWHERE = {"capsign.test/no-such-node": "true"}
DRY = ("create", "--dry-run=server", "-f", "-")
Pod = dict[str, Any]


def mount(name: str, path: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **more}


def token(name: str, audience: str) -> dict[str, Any]:
    return {
        "name": name,
        "projected": {
            "sources": [{"serviceAccountToken": {"audience": audience, "path": "token"}}]
        },
    }


AGENT = {
    "name": "capsign-agent",
    "image": "localhost/capsign-agent:0.1.0",
    "restartPolicy": "Always",
    "volumeMounts": [
        mount("capsign-state", "/run/capsign/state"),
        mount("capsign-token", "/var/run/secrets/capsign", readOnly=True),
        mount("capsign-none", "/var/run/secrets/kubernetes.io/serviceaccount", readOnly=True),
        mount("capsign-socket-0", "/run/capsign/0"),
        mount("capsign-socket-1", "/run/capsign/1"),
    ],
}
EMPTY = [
    {"name": f"capsign-{name}", "emptyDir": {"medium": "Memory"}}
    for name in ("state", "none", "socket-0", "socket-1")
]


def injected() -> Pod:
    return copy.deepcopy(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "by-hand", "namespace": "default"},
            "spec": {
                "serviceAccountName": "default",
                "nodeSelector": NOWHERE,
                "initContainers": [AGENT],
                "containers": [
                    {
                        "name": "app",
                        "image": "x",
                        "volumeMounts": [mount("capsign-socket-0", "/run/capsign", readOnly=True)],
                    },
                    {
                        "name": "other",
                        "image": "x",
                        "volumeMounts": [mount("capsign-socket-1", "/run/capsign", readOnly=True)],
                    },
                ],
                "volumes": [*EMPTY, token("capsign-token", "capsign")],
            },
        }
    )


def bare() -> Pod:
    pod = injected()
    pod["spec"] |= {
        "initContainers": [],
        "volumes": [],
        "containers": [{"name": "app", "image": "x"}],
    }
    return pod


def app_mounts(pod: Pod, *mounts: dict[str, Any]) -> Pod:
    pod["spec"]["containers"][0]["volumeMounts"] += mounts
    return pod


def with_init_container(pod: Pod) -> Pod:
    pod["spec"]["initContainers"].append(
        {"name": "early", "image": "x", "volumeMounts": [mount("capsign-state", "/stolen")]}
    )
    return pod


def writable(pod: Pod) -> Pod:
    del pod["spec"]["containers"][0]["volumeMounts"][0]["readOnly"]
    return pod


def elsewhere(pod: Pod) -> Pod:
    pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = "/mine"
    return pod


def sharing(pod: Pod) -> Pod:
    pod["spec"]["containers"][1]["volumeMounts"][0]["name"] = "capsign-socket-0"
    return pod


def with_volume(pod: Pod, volume: dict[str, Any]) -> Pod:
    pod["spec"]["volumes"].append(volume)
    return pod


def with_spec(pod: Pod, **more: Any) -> Pod:
    pod["spec"] |= more
    return pod


TAKEN: dict[str, Callable[[], Pod]] = {
    "what the injector makes": injected,
    "a pod that has nothing of ours": bare,
    "a token for somebody else": lambda: with_volume(bare(), token("capsign-like", "vault")),
    "a volume with a name like ours": lambda: with_volume(
        bare(), {"name": "capsign-notes", "emptyDir": {}}
    ),
    "a shared process namespace without an agent": lambda: with_spec(
        bare(), shareProcessNamespace=True
    ),
}

REFUSED: dict[str, tuple[Callable[[], Pod], str]] = {
    "the token in a container": (
        lambda: app_mounts(injected(), mount("capsign-token", "/stolen")),
        "container app mounts a volume of the agent",
    ),
    "the state in a container": (
        lambda: app_mounts(injected(), mount("capsign-state", "/stolen")),
        "container app mounts a volume of the agent",
    ),
    "the state in an init container": (
        lambda: with_init_container(injected()),
        "container early mounts a volume of the agent",
    ),
    "a socket that can be replaced": (
        lambda: writable(injected()),
        "container app must mount one capsign-socket volume at most",
    ),
    "a socket elsewhere": (
        lambda: elsewhere(injected()),
        "container app must mount one capsign-socket volume at most",
    ),
    "two sockets": (
        lambda: app_mounts(injected(), mount("capsign-socket-1", "/run/other", readOnly=True)),
        "container app must mount one capsign-socket volume at most",
    ),
    "one socket for two": (
        lambda: sharing(injected()),
        "more than one container mounts capsign-socket-0",
    ),
    "a token for our audience in another volume": (
        lambda: with_volume(injected(), token("mine", "capsign")),
        "volume mine asks for a token with the audience capsign",
    ),
    "a token for our audience without an agent": (
        lambda: with_volume(bare(), token("capsign-token", "capsign")),
        "volume capsign-token asks for a token with the audience capsign",
    ),
    "a shared process namespace": (
        lambda: with_spec(injected(), shareProcessNamespace=True),
        "Remove spec.hostPID and spec.shareProcessNamespace",
    ),
    "the node's processes": (
        lambda: with_spec(injected(), hostPID=True),
        "Remove spec.hostPID and spec.shareProcessNamespace",
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_a_pod_is_taken(fleet, case):
    fleet.kubectl(*DRY, stdin=json.dumps(TAKEN[case]()))


@pytest.mark.parametrize("case", REFUSED)
def test_a_pod_is_refused_with_a_way_out(fleet, case):
    pod, sentence = REFUSED[case]
    complaint = fleet.kubectl.refused(*DRY, stdin=json.dumps(pod()))
    assert "ValidatingAdmissionPolicy 'capsign-pods-capsign-system'" in complaint
    assert sentence in complaint


@pytest.fixture
def pending(fleet) -> Iterator[str]:
    """A pod that is there and that no node runs."""
    fleet.kubectl.create(injected())
    yield "by-hand"
    fleet.kubectl(
        "delete",
        "pod",
        "by-hand",
        "--namespace=default",
        "--wait=true",
        "--grace-period=0",
        "--force",
    )


def patch(name: str, change: dict[str, Any], *more: str) -> tuple[str, ...]:
    dry = ("--namespace=default", "--dry-run=server", "--type=strategic")
    return ("patch", "pod", name, *dry, *more, f"--patch={json.dumps(change)}")


def debugger(**more: Any) -> dict[str, Any]:
    return {"spec": {"ephemeralContainers": [{"name": "look", "image": "x", **more}]}}


def test_a_running_agent_keeps_its_image_and_is_entered_by_nobody(fleet, pending):
    kubectl, debug = fleet.kubectl, "--subresource=ephemeralcontainers"
    kubectl(*patch(pending, {"metadata": {"labels": {"a": "b"}}}))
    kubectl(*patch(pending, {"spec": {"containers": [{"name": "app", "image": "y"}]}}))
    changed = {"spec": {"initContainers": [{"name": "capsign-agent", "image": "y"}]}}
    assert "the image of capsign-agent does not change" in kubectl.refused(*patch(pending, changed))

    kubectl(*patch(pending, debugger(targetContainerName="app"), debug))
    for way_in in (
        {"targetContainerName": "capsign-agent"},
        {"volumeMounts": [mount("capsign-socket-0", "/x")]},
        {"volumeMounts": [mount("capsign-token", "/x")]},
        {"targetContainerName": "app", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}},
    ):
        complaint = kubectl.refused(*patch(pending, debugger(**way_in), debug))
        assert "the ephemeral container look would share the agent" in complaint, way_in

    for verb in (("exec",), ("attach",)):
        more = ("--", "x") if verb == ("exec",) else ()
        complaint = kubectl.refused(
            *verb, pending, "--namespace=default", "--container=capsign-agent", *more
        )
        assert "capsign: nobody enters the agent" in complaint
        assert "capsign:" not in kubectl.refused(
            *verb, pending, "--namespace=default", "--container=app", *more
        )


def test_what_is_refused_is_in_the_audit_log(fleet):
    key = "validation.policy.admission.k8s.io/validation_failure"
    pod = app_mounts(injected(), mount("capsign-state", "/stolen"))
    pod["metadata"]["name"] = "thief-of-state"
    fleet.kubectl.refused(*DRY, stdin=json.dumps(pod))

    def event() -> dict[str, Any] | None:
        found = [
            one
            for one in fleet.cluster.audited()
            if one.get("objectRef", {}).get("name") == "thief-of-state"
        ]
        return next((one for one in found if key in one.get("annotations", {})), None)

    failure = until(event, "the audit event of the refused pod")
    assert failure is not None
    assert "capsign" in failure["annotations"][key]
    assert failure["responseStatus"]["code"] == 403


def test_nobody_asks_for_the_agents_token_by_hand(fleet):
    complaint = fleet.kubectl.refused(
        "create", "token", "default", "--namespace=default", "--audience=capsign"
    )
    assert "capsign: only a kubelet may ask for a token with the audience capsign" in complaint
    assert (
        fleet.kubectl(
            "create", "token", "default", "--namespace=default", "--audience=vault"
        ).count(".")
        == 2
    )
