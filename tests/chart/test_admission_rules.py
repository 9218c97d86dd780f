"""The admission policy takes what the injector makes, whatever the pod, and refuses what an
attacker makes of it.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
from capsign_injector.inject import inject
from capsign_injector.judge.node_access import ROOT_CAPABILITIES
from hypothesis import HealthCheck, given, settings
from support import admission_rules, chart, pods
from support.injector_settings import BUNDLE, SETTINGS

Pod = dict[str, Any]
CREATE = {"operation": "CREATE", "resource": "pods", "namespace": "shop"}
UPDATE = {**CREATE, "operation": "UPDATE"}
DEBUG = {**UPDATE, "subResource": "ephemeralcontainers"}
STRICT = {
    "admissionPolicy": {
        "onlyInjected": True,
        "tokenRequests": True,
        "exec": True,
        "agentImages": [SETTINGS.image],
    }
}


@functools.cache
def policy(name: str, *, strict: bool = False) -> admission_rules.Policy:
    rendered = chart.objects(STRICT if strict else {})
    return chart.one(rendered, "ValidatingAdmissionPolicy", f"capsign-{name}-capsign-system")


def pod(**spec: Any) -> Pod:
    containers = [{"name": "app", "image": "a"}, {"name": "other", "image": "a"}]
    return {
        "metadata": {"labels": {"capsign.dev/inject": "true"}},
        "spec": {"containers": containers, **spec},
    }


def injected(given: Pod | None = None) -> Pod:
    return copy.deepcopy(pods.defaulted(inject(given or pod(), "shop", SETTINGS, BUNDLE).pod))


def refused(
    attack: Pod, request: dict[str, Any] = CREATE, old: Pod | None = None, *, strict: bool = False
) -> list[str]:
    return admission_rules.refusals(policy("pods", strict=strict), request, attack, old)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(pods.pods())
def test_what_the_injector_makes_is_taken_and_may_be_changed_elsewhere(given):
    after = injected(given)
    assert refused(after, strict=True) == []
    changed = copy.deepcopy(after)
    changed["metadata"]["labels"]["a"] = "b"
    changed["spec"]["containers"][0]["image"] = "another"
    assert refused(changed, UPDATE, after, strict=True) == []


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(pods.pods())
def test_a_pod_without_anything_of_ours_is_none_of_our_business(given):
    given["metadata"]["labels"] = {}
    assert refused(pods.defaulted(given), strict=True) == []


def mounting(name: str, container: int = 1, **more: Any) -> Callable[[], Pod]:
    def made() -> Pod:
        attack = injected()
        mounts = attack["spec"]["containers"][container].setdefault("volumeMounts", [])
        mounts.append({"name": name, "mountPath": "/stolen", **more})
        return attack

    return made


def changed(**spec: Any) -> Callable[[], Pod]:
    def made() -> Pod:
        attack = injected()
        attack["spec"] |= spec
        return attack

    return made


def early(*mounts: str) -> Pod:
    attack = injected()
    attack["spec"]["initContainers"].insert(
        0, {"name": "early", "volumeMounts": [{"name": m, "mountPath": "/x"} for m in mounts]}
    )
    return attack


def own_socket(**changed: Any) -> Callable[[], Pod]:
    """A container's own socket, mounted otherwise than the injector does."""

    def made() -> Pod:
        attack = injected()
        attack["spec"]["containers"][0]["volumeMounts"][0] |= changed
        return attack

    return made


def two_sockets() -> Pod:
    attack = injected()
    attack["spec"]["containers"].append({"name": "both", "volumeMounts": [*socket_mounts(attack)]})
    for one in attack["spec"]["containers"][:2]:
        one["volumeMounts"] = []
    return attack


def socket_mounts(attack: Pod) -> list[dict[str, Any]]:
    return [one["volumeMounts"][0] for one in attack["spec"]["containers"][:2]]


def alike() -> Pod:
    """Of a pod in which one container was chosen, both mount its socket."""
    attack = injected(
        {
            **pod(),
            "metadata": {**pod()["metadata"], "annotations": {"capsign.dev/containers": "app"}},
        }
    )
    app, other = attack["spec"]["containers"]
    other["volumeMounts"] = app["volumeMounts"]
    return attack


def asking(volume: str, *, agent: bool = True) -> Pod:
    attack: Pod = (
        injected()
        if agent
        else {"metadata": {}, "spec": {"containers": [{"name": "app"}], "volumes": []}}
    )
    source: Any = {"serviceAccountToken": {"audience": "capsign", "path": "t"}}
    attack["spec"]["volumes"].append(
        {"name": volume, "projected": {"sources": [{"configMap": {"name": "c"}}, source]}}
    )
    return attack


REFUSED: dict[str, tuple[Callable[[], Pod], str]] = {
    "the token": (
        mounting("capsign-token", readOnly=True),
        "container other mounts a volume of the agent",
    ),
    "a part of the token": (
        mounting("capsign-token", subPath="token"),
        "container other mounts a volume of the agent",
    ),
    "the state": (mounting("capsign-state"), "container other mounts a volume of the agent"),
    "the state in an init container before the agent": (
        lambda: early("capsign-state"),
        "container early mounts",
    ),
    "another's socket": (
        mounting("capsign-socket-0", readOnly=True),
        "container other must mount one",
    ),
    "another's socket as its only one": (
        lambda: early("capsign-socket-0"),
        "container early must mount one capsign-socket volume at most, read-only",
    ),
    "another's socket, mounted just as its owner does": (
        alike,
        "more than one container mounts capsign-socket-0",
    ),
    "its own socket, to replace": (own_socket(readOnly=False), "container app must mount one"),
    "its own socket elsewhere": (own_socket(mountPath="/mine"), "container app must mount one"),
    "a part of its own socket's volume": (own_socket(subPath="s"), "container app must mount one"),
    "a part that a variable names": (
        own_socket(subPathExpr="$(X)"),
        "container app must mount one",
    ),
    "two sockets": (two_sockets, "container both must mount one"),
    "our audience under another name": (lambda: asking("mine"), "volume mine asks for a token"),
    "our audience without an agent": (
        lambda: asking("capsign-token", agent=False),
        "volume capsign-token asks for a token",
    ),
    "a shared process namespace": (
        changed(shareProcessNamespace=True),
        "other containers see the agent's process",
    ),
    "the node's processes": (changed(hostPID=True), "other containers see the agent's process"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_attack_is_refused(case: str) -> None:
    attack, sentence = REFUSED[case]
    (complaint, *_) = refused(attack())
    assert sentence in complaint


def own_agent(namespace: str = "shop", *, labelled: bool = False, **more: Any) -> list[str]:
    """A pod whose author writes the agent: with the right image and name, and a command of their
    own.
    """
    attack = injected()
    attack["spec"]["initContainers"][0] |= more
    if not labelled:
        del attack["metadata"]["labels"]["capsign.dev/inject"]
    return refused(attack, {**CREATE, "namespace": namespace}, strict=True)


@pytest.mark.parametrize("namespace", ["shop", "kube-system", "capsign-system"])
def test_an_agent_that_the_webhook_never_saw_is_refused_where_that_is_wanted(
    namespace: str,
) -> None:
    """It may have the right image and yet run a shell that prints the token: only the webhook makes
    it ours.
    """
    (complaint,) = own_agent(
        namespace,
        command=["/usr/bin/python3", "-c", "print(open('/var/run/secrets/capsign/token').read())"],
    )
    assert "was not made by the injector" in complaint


def test_the_label_does_not_help_where_the_webhook_does_not_look() -> None:
    (complaint,) = own_agent("kube-system", labelled=True)
    assert "in a namespace that the injector serves" in complaint
    assert own_agent("shop", labelled=True) == []
    assert own_agent("shop", labelled=True, image="mine") == [
        "capsign: this image is not one that capsign-agent may have "
        "(admissionPolicy.agentImages of the chart). Let the injector "
        "add the agent, or add the image there."
    ]


def test_a_running_pod_may_lose_the_label_and_nothing_else() -> None:
    old = injected()
    new = injected()
    new["metadata"]["labels"] = {}
    assert refused(new, UPDATE, old, strict=True) == []
    new["spec"]["initContainers"][0]["image"] = "mine"
    (complaint,) = refused(new, UPDATE, old)
    assert "the image of capsign-agent does not change" in complaint


@pytest.mark.parametrize(
    "more",
    [
        {"targetContainerName": "capsign-agent"},
        {"volumeMounts": [{"name": "capsign-state", "mountPath": "/x"}]},
        {
            "volumeMounts": [
                {"name": "capsign-socket-0", "mountPath": "/run/capsign", "readOnly": True}
            ]
        },
        {"targetContainerName": "app", "securityContext": {"privileged": True}},
        {
            "targetContainerName": "app",
            "volumeMounts": [{"name": "node", "mountPath": "/x", "readOnly": True}],
        },
    ],
)
def test_a_debugger_does_not_share_the_agent(more: dict[str, Any]) -> None:
    old = injected(pod(volumes=[{"name": "node", "hostPath": {"path": "/run/containerd"}}]))
    attack = copy.deepcopy(old)
    attack["spec"]["ephemeralContainers"] = [{"name": "look", **more}]
    (complaint,) = refused(attack, DEBUG, old)
    assert "the ephemeral container look would share the agent" in complaint
    attack["spec"]["ephemeralContainers"] = [
        {"name": "look", "targetContainerName": "app", "securityContext": {"runAsUser": 1}}
    ]
    assert refused(attack, DEBUG, injected()) == []


@pytest.mark.parametrize("name", [*sorted(ROOT_CAPABILITIES), "CAP_SYS_ADMIN", "sys_admin"])
def test_a_debugger_gets_no_capability_that_the_injector_refuses(name: str) -> None:
    """`kubectl debug --custom` with SYS_ADMIN was let in where a privileged one was not, and is as
    good as root on the node.
    """

    def adding(*names: str) -> list[str]:
        look = {
            "name": "look",
            "targetContainerName": "app",
            "securityContext": {"capabilities": {"add": [*names]}},
        }
        attack = injected()
        attack["spec"]["ephemeralContainers"] = [look]
        return refused(attack, DEBUG, injected())

    (complaint,) = adding("CHOWN", name)
    assert "the ephemeral container look would share the agent" in complaint
    assert adding("NET_ADMIN", "SYS_PTRACE", "SYS_ADMINISTRATOR") == []


def test_a_pod_from_before_a_rule_can_end() -> None:
    """Nothing takes a debugger out of a pod again. One that was let in before the rule came kept
    the controller of its Job from removing its finalizer, so that the pod was never deleted.
    """
    old = injected()
    look = {"name": "look", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}
    old["spec"]["ephemeralContainers"] = [look]
    old["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = []
    assert refused(new, UPDATE, old) == []
    new["spec"]["ephemeralContainers"].append({"name": "second"})
    assert len(refused(new, DEBUG, old)) == 1


def test_a_privileged_debugger_is_for_pods_without_an_agent_or_where_nodes_are_open() -> None:
    """The injector refuses a privileged container: what it refuses at first must not come in
    later.
    """
    look = {"ephemeralContainers": [{"name": "look", "securityContext": {"privileged": True}}]}
    bare = {"metadata": pod()["metadata"], "spec": {"containers": [{"name": "app"}], **look}}
    assert refused(bare, DEBUG, bare) == []
    lenient = chart.objects({"agent": {"allowNodeAccess": True}})
    rules = chart.one(lenient, "ValidatingAdmissionPolicy", "capsign-pods-capsign-system")
    attack = injected()
    attack["spec"] |= look
    assert admission_rules.refusals(rules, DEBUG, attack, injected()) == []


@pytest.mark.parametrize(
    ("metadata", "asked"),
    [
        ({"labels": {"capsign.dev/inject": "true"}}, True),
        ({"labels": {"capsign.dev/inject": "false", "a": "true"}}, False),
        ({"labels": {"capsign.dev/injected": "true"}}, False),
        ({"annotations": {"capsign.dev/inject": "true"}}, False),
        ({}, False),
    ],
)
def test_the_webhook_is_asked_about_labelled_pods_and_no_others(
    metadata: dict[str, Any], asked: bool
) -> None:
    (webhook,) = chart.one(
        chart.objects({}), "MutatingWebhookConfiguration", "capsign-injector-capsign-system"
    )["webhooks"]
    (condition,) = webhook["matchConditions"]
    assert (
        admission_rules.value(condition["expression"], {"object": {"metadata": metadata}}) is asked
    )


def test_only_a_kubelet_asks_for_the_agents_token() -> None:
    rules = policy("tokens", strict=True)
    request = {"operation": "CREATE", "resource": "serviceaccounts", "subResource": "token"}
    people = {"username": "system:node:mine", "groups": ["system:authenticated"]}
    kubelet = {"username": "system:node:n1", "groups": ["system:nodes", "system:authenticated"]}
    asked = {"spec": {"audiences": ["vault", "capsign"]}}
    for user, audience, taken in (
        (people, asked, False),
        (kubelet, asked, True),
        (people, {"spec": {"audiences": ["v"]}}, True),
    ):
        assert (
            admission_rules.refusals(rules, {**request, "userInfo": user}, audience) == []
        ) is taken
    assert (
        admission_rules.refusals(rules, {**request, "userInfo": {"username": "x"}}, {"spec": {}})
        == []
    )


def test_nobody_enters_the_agent() -> None:
    rules = policy("exec", strict=True)
    for way in ("exec", "attach"):
        request = {"operation": "CONNECT", "resource": "pods", "subResource": way}
        assert admission_rules.refusals(rules, request, {"container": "capsign-agent"})
        assert admission_rules.refusals(rules, request, {"container": "app"}) == []
        assert admission_rules.refusals(rules, request, {}) == []


def asking_with(place: str, value: str, *, template: bool = False) -> list[str]:
    """What is said about a pod, or the template of a workload, with `capsign.dev/inject` among its
    labels or annotations.
    """
    metadata = {place: {"capsign.dev/inject": value}}
    if not template:
        return admission_rules.refusals(
            policy("asking"), CREATE, {"metadata": metadata, "spec": {"containers": []}}
        )
    rules = copy.deepcopy(
        dict(
            chart.one(
                chart.objects({}),
                "ValidatingAdmissionPolicy",
                "capsign-asking-capsign-system-templates",
            )
        )
    )
    rules["spec"]["matchConstraints"]["resourceRules"][1:] = []
    workload = {
        "metadata": {},
        "spec": {"template": {"metadata": metadata, "spec": {"containers": []}}},
    }
    return admission_rules.refusals(
        rules, {"operation": "CREATE", "resource": "deployments", "namespace": "shop"}, workload
    )


@pytest.mark.parametrize("template", [False, True], ids=["pod", "template"])
def test_who_asks_in_words_that_nothing_hears_is_told(*, template: bool) -> None:
    """Such pods ran without an agent and nobody said why: a webhook's selector sees labels only,
    and the exact text only.
    """
    for value in ("true", "false"):
        assert asking_with("labels", value, template=template) == []
        (complaint,) = asking_with("annotations", value, template=template)
        assert "It is a label" in complaint
    for value in ("True", "yes", ""):
        (complaint,) = asking_with("labels", value, template=template)
        assert 'must be "true"' in complaint


def test_the_injector_makes_no_secret_but_its_own() -> None:
    """Its role lets it make Secrets, because no rule can name what is made; a Secret may be the
    token of another account.
    """
    rules = policy("injector-secret")
    request = {"operation": "CREATE", "resource": "secrets"}
    mine = {"username": "system:serviceaccount:capsign-system:capsign-injector"}
    for name, kind, who, taken in (
        ("capsign-injector-tls", "Opaque", mine, True),
        ("capsign-injector-tls", "kubernetes.io/service-account-token", mine, False),
        ("other", "Opaque", mine, False),
        ("other", "Opaque", {"username": "somebody"}, True),
    ):
        made = {"metadata": {"name": name}, "type": kind}
        assert (
            admission_rules.refusals(rules, {**request, "userInfo": who}, made) == []
        ) is taken, (name, kind)
