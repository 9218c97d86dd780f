"""What holds for every pod, whatever is in it and whoever else changes it."""

from __future__ import annotations

import copy
import json

from capsign_injector.build import patch, volumes
from capsign_injector.inject import inject
from capsign_injector.settings import Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import json_patch, kube_schemas, pod_security, pods
from support.injector_settings import BUNDLE, SETTINGS

BOUNDED = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def injected(pod, with_settings: Settings = SETTINGS):
    return inject(pod, "shop", with_settings, BUNDLE).pod


def without_ours(pod):
    """The pod with everything of ours taken out, by a rule that is not the injector's: our names,
    nothing else.
    """
    pod = copy.deepcopy(pod)
    spec = pod["spec"]
    pod["metadata"].get("annotations", {}).pop("capsign.dev/injected", None)
    spec["initContainers"] = [
        one for one in spec.get("initContainers") or () if one["name"] != "capsign-agent"
    ]
    spec["volumes"] = [
        one for one in spec.get("volumes") or () if not one["name"].startswith("capsign-")
    ]
    spec["imagePullSecrets"] = [
        one for one in spec.get("imagePullSecrets") or () if one["name"] != "mirror"
    ]
    for one in [*spec["initContainers"], *spec["containers"]]:
        one["volumeMounts"] = [
            each
            for each in one.get("volumeMounts") or ()
            if not each["name"].startswith("capsign-")
        ]
        one["env"] = [each for each in one.get("env") or () if each["name"] != "CAPSIGN_SOCKET"]
    return prune(pod)


def prune(value):
    """Absent, null and empty are the same to Kubernetes for lists and maps of these kinds."""
    if isinstance(value, dict):
        kept = {key: prune(each) for key, each in value.items()}
        empty = (
            "annotations",
            "initContainers",
            "volumes",
            "imagePullSecrets",
            "volumeMounts",
            "env",
        )
        return {
            key: each
            for key, each in kept.items()
            if each not in (None, [], {}) or key not in empty
        }
    return [prune(each) for each in value] if isinstance(value, list) else value


@BOUNDED
@given(pods.pods())
def test_twice_is_once_and_the_input_stays(pod):
    before = copy.deepcopy(pod)
    once = injected(pod)
    assert pod == before
    kept = copy.deepcopy(once)
    assert injected(once) == once == kept
    assert json.dumps(injected(pod)) == json.dumps(once)


@BOUNDED
@given(pods.pods())
def test_what_was_not_meant_to_change_is_kept(pod):
    assert without_ours(injected(pod)) == without_ours(pod)


@BOUNDED
@given(pods.pods())
def test_the_patch_says_the_difference_and_no_more(pod):
    after = injected(pod)
    operations = patch.diff(pod, after)
    assert json_patch.apply(pod, operations) == after
    assert operations == patch.diff(pod, after)
    assert not [one for one in operations if one["op"] in {"remove", "move"}]
    assert patch.diff(after, after) == []


@BOUNDED
@given(pods.pods())
def test_the_result_is_valid_in_every_supported_release(pod):
    if not kube_schemas.faults(pod):
        assert kube_schemas.faults(injected(pod)) == []


@BOUNDED
@given(pods.pods(restricted=True))
def test_what_satisfied_restricted_still_does(pod):
    assert pod_security.violations(pod) == []
    assert pod_security.violations(injected(pod)) == []


@BOUNDED
@given(pods.pods())
def test_the_agent_itself_always_satisfies_restricted(pod):
    """Whatever the pod says for all its containers: no rule is broken at the agent's container or
    at a volume of ours.
    """
    broken = pod_security.violations(injected(pod))
    assert not [one for one in broken if "capsign-" in one]


@BOUNDED
@given(
    pods.pods(),
    st.lists(st.sampled_from(pods.OTHERS), max_size=5),
    st.lists(st.sampled_from(pods.OTHERS), max_size=5),
)
def test_others_may_change_the_pod_before_and_between(pod, before, between):
    for change in before:
        pod = change(pod)
    once = injected(pod)
    changed = once
    for change in between:
        changed = change(changed)
    twice = injected(changed)
    assert injected(twice) == twice
    assert twice["spec"]["initContainers"][0]["name"] == "capsign-agent"
    assert sockets(twice) == sockets(once)
    foreign = [
        one for one in changed["spec"].get("initContainers") or () if one["name"] != "capsign-agent"
    ]
    assert [one["name"] for one in twice["spec"]["initContainers"][1:]] == [
        one["name"] for one in foreign
    ]
    assert json_patch.apply(changed, patch.diff(changed, twice)) == twice


def sockets(pod):
    return {
        (one["name"], mount["name"])
        for one in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
        for mount in one.get("volumeMounts") or ()
        if mount["name"].startswith("capsign-socket-") and one["name"] != "capsign-agent"
    }


@BOUNDED
@given(pods.pods())
def test_what_the_api_server_adds_makes_no_second_patch(pod):
    """The API server calls us twice for nearly every pod: its own admission goes first, and again
    after our patch.
    """

    def admitted(pod):
        return pods.always_pulled(pods.limit_ranged(pods.defaulted(pod)))

    once = admitted(injected(admitted(pod)))
    assert patch.diff(once, injected(once)) == []


@BOUNDED
@given(pods.pods())
def test_the_agent_never_gets_the_api_servers_own_token(pod):
    agent = pods.defaulted(injected(pod))["spec"]["initContainers"][0]
    places = {mount["mountPath"]: mount["name"] for mount in agent["volumeMounts"]}
    assert places[volumes.DEFAULT_TOKEN_DIR] == "capsign-none"
    assert "kube-api-access-abcde" not in places.values()


@BOUNDED
@given(pods.pods())
def test_only_the_agent_mounts_its_volumes_and_each_container_only_its_own_socket(pod):
    after = injected(pod)
    owners: dict[str, set[str]] = {}
    for one in [*after["spec"]["initContainers"][1:], *after["spec"]["containers"]]:
        ours = [
            mount for mount in one.get("volumeMounts") or () if mount["name"].startswith("capsign-")
        ]
        assert len(ours) <= 1
        for mount in ours:
            assert mount == {"name": mount["name"], "mountPath": "/run/capsign", "readOnly": True}
            owners.setdefault(mount["name"], set()).add(one["name"])
    assert all(name.startswith("capsign-socket-") and len(who) == 1 for name, who in owners.items())
    for volume in after["spec"]["volumes"]:
        if volume["name"].startswith("capsign-") and volume["name"] != "capsign-token":
            assert volume["emptyDir"]["medium"] == "Memory"
            assert volume["emptyDir"]["sizeLimit"]
