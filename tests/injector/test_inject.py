"""What injection makes of a pod, point by point."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest
from capsign_agent import config as agent_settings
from capsign_injector.build.agent_config import MAX_BUNDLE_BYTES, certificates
from capsign_injector.inject import inject
from capsign_injector.settings import parse
from capsign_wire import toml_text
from capsign_wire.settings import SettingsError
from hypothesis import given
from hypothesis import strategies as st
from support import pods


def pod(*names: str, **spec):
    metadata = {
        "labels": {"capsign.dev/inject": "true"},
        "annotations": spec.pop("annotations", {}),
    }
    return {
        "metadata": metadata,
        "spec": {
            "containers": [{"name": name, "image": "a"} for name in names or ("app",)],
            **spec,
        },
    }


def agent(after):
    return after["spec"]["initContainers"][0]


def toml(after):
    return tomllib.loads(agent(after)["env"][0]["value"])


def test_the_profile_of_the_pod_says_which_engine_serves_and_where_that_may_write(settings, bundle):
    """pygrpc-native's second server has its socket among the temporary files, and the agent's root
    cannot be written.
    """
    usual = inject(pod("a"), "shop", settings, bundle).pod
    assert "front" not in toml(usual)
    trusting = msgspec.structs.replace(settings.profiles["default"], engine="native")
    chosen = {**settings.profiles, "trusting": trusting}
    settings = msgspec.structs.replace(settings, profiles=chosen)
    asked = {"capsign.dev/profile": "trusting", "capsign.dev/profile.b": "default"}
    after = inject(pod("a", "b", annotations=asked), "shop", settings, bundle).pod
    assert toml(after)["front"] == {"engine": "native"}
    assert agent(after)["env"][1:] == [{"name": "TMPDIR", "value": "/run/capsign/state"}]
    asked = {"capsign.dev/profile.b": "trusting"}
    assert "front" not in toml(
        inject(pod("a", "b", annotations=asked), "shop", settings, bundle).pod
    )


def test_the_agent_reads_what_the_injector_writes(settings, bundle):
    asked = {
        "capsign.dev/profile": "payments",
        "capsign.dev/profile.b": "receipts",
        "capsign.dev/log-level": "debug",
    }
    after = inject(pod("a", "b", annotations=asked), "shop", settings, bundle).pod
    (variable,) = agent(after)["env"]
    read = agent_settings.load(None, {variable["name"]: variable["value"]})
    assert [(one.name, str(one.path), one.grants) for one in read.sockets] == [
        ("a", "/run/capsign/0/s/agent.sock", ("payments-jwt", "payments-receipt")),
        ("b", "/run/capsign/1/s/agent.sock", ("payments-receipt",)),
    ]
    assert {(one.mode, one.directory_mode) for one in read.sockets} == {("0666", "0711")}
    assert read.telemetry.log_level == "debug"
    assert read.upstream.targets == ("capsign-adapter.capsign-system.svc:7443",)
    assert str(read.probe_path) == agent(after)["startupProbe"]["exec"]["command"][-1]


def test_its_identity_comes_from_the_projected_token(settings, bundle):
    after = inject(pod(), "shop", settings, bundle).pod
    identity = toml(after)["identity"]
    assert identity["source"] == "kubernetes"
    assert identity["kubernetes"]["bundle"] == bundle
    (token,) = [one for one in after["spec"]["volumes"] if one["name"] == "capsign-token"]
    (source,) = token["projected"]["sources"]
    assert source["serviceAccountToken"] == {
        "audience": "capsign",
        "expirationSeconds": 600,
        "path": "token",
    }
    (mount,) = [one for one in agent(after)["volumeMounts"] if one["name"] == "capsign-token"]
    assert identity["kubernetes"]["token_file"] == f"{mount['mountPath']}/token"


def test_nothing_in_the_configuration_is_taken_for_a_variable_reference(bundle):
    settings = parse(b"audience: $(HOSTNAME)\ntrust_domain: a.b", "x")
    after = inject(pod(), "shop", settings, bundle).pod
    assert "$" not in agent(after)["env"][0]["value"]
    assert toml({"spec": after["spec"]})["upstream"]["server_name"]


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_every_text_is_one_toml_string(text):
    written = toml_text.value(text, escape="$")
    assert tomllib.loads(f"x = {written}") == {"x": text}
    assert "$" not in written
    assert "\n" not in written


def test_a_bundle_is_its_certificates_and_nothing_between_them(bundle):
    assert (
        certificates(f'subject=/CN="""\n[upstream]\n{bundle}\r\n# \u00e9\n{bundle}') == bundle * 2
    )
    assert certificates("") == certificates(" \n") == ""
    for wrong in (
        "x",
        "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----",
        bundle * (MAX_BUNDLE_BYTES // 50),
    ):
        with pytest.raises(SettingsError, match="Is it the right file"):
            certificates(wrong)


def test_the_smallest_patch_to_a_chosen_container(settings, bundle):
    """One mount and one variable; the container that was not chosen is the same object as
    before.
    """
    before = pod("app", "other", annotations={"capsign.dev/containers": "app"})
    app, other = inject(before, "shop", settings, bundle).pod["spec"]["containers"]
    assert set(app) - set(before["spec"]["containers"][0]) == {"env", "volumeMounts"}
    assert app["env"] == [{"name": "CAPSIGN_SOCKET", "value": "/run/capsign/s/agent.sock"}]
    assert app["volumeMounts"] == [
        {"name": "capsign-socket-0", "mountPath": "/run/capsign", "readOnly": True}
    ]
    assert other == before["spec"]["containers"][1]


def test_a_container_that_comes_after_us_gets_no_socket_unless_it_is_named(settings, bundle):
    """A mesh injects its proxy after our first call; on our second one it is an ordinary container
    like any other, and must not be able to sign for the application that it stands beside.
    """
    once = inject(pod("app"), "shop", settings, bundle)
    meshed = pods.meshed(once.pod)
    assert inject(meshed, "shop", settings, bundle).containers == ("app",)
    meshed["metadata"]["annotations"]["capsign.dev/containers"] = "app,mesh-stats"
    assert inject(meshed, "shop", settings, bundle).containers == ("app", "mesh-stats")


def test_a_choice_that_changed_leaves_nothing_behind(settings, bundle):
    """A template that was injected offline is edited: sockets follow the annotation; what is no
    longer chosen loses its own.
    """
    once = inject(pod("a", "b"), "shop", settings, bundle).pod
    asked = {"capsign.dev/injected": "1", "capsign.dev/containers": "b"}
    again = inject(
        {**once, "metadata": {**once["metadata"], "annotations": asked}}, "shop", settings, bundle
    ).pod
    assert again == inject(pod("a", "b", annotations=asked), "shop", settings, bundle).pod


def test_what_was_injected_with_other_settings_is_made_anew(settings, bundle):
    """GitOps holds a manifest with last year's image, bundle and profile: admission replaces what
    is ours, and only that.
    """
    old = parse(b"image: localhost/old:1\naudience: old\nprofiles: {default: {grants: [g]}}", "x")
    stale = inject(pod("app", "web"), "shop", old, "").pod
    assert (
        inject(stale, "shop", settings, bundle).pod
        == inject(pod("app", "web"), "shop", settings, bundle).pod
    )


def test_a_forged_agent_is_replaced_by_the_real_one(settings, bundle):
    """Whoever writes an agent of their own and says that it was injected gets ours, with nothing
    left of theirs.
    """
    forged = inject(pod(), "shop", settings, bundle).pod
    theirs = agent(forged)
    theirs |= {
        "image": "evil",
        "command": ["sh"],
        "lifecycle": {"postStart": {"exec": {"command": ["sh"]}}},
        "stdin": True,
    }
    theirs["env"].append({"name": "LD_PRELOAD", "value": "/x.so"})
    theirs["securityContext"] = {"privileged": False, "runAsUser": 0}
    theirs["volumeMounts"].append({"name": "x", "mountPath": "/opt/capsign"})
    forged["spec"]["volumes"][0] = {"name": "capsign-state", "hostPath": {"path": "/tmp"}}
    forged["spec"]["volumes"].append({"name": "capsign-extra", "hostPath": {"path": "/"}})
    clean = inject(pod(), "shop", settings, bundle).pod
    assert inject(forged, "shop", settings, bundle).pod == clean


def test_admission_of_the_api_server_is_kept(settings, bundle):
    """LimitRange and AlwaysPullImages act on the agent after our first call and check again after
    our second: without their values the pod would be refused, and nobody would know why.
    """
    once = inject(pod(), "shop", settings, bundle).pod
    again = agent(inject(pods.always_pulled(pods.limit_ranged(once)), "shop", settings, bundle).pod)
    assert again["imagePullPolicy"] == "Always"
    assert again["resources"]["limits"] == {
        "cpu": "750m",
        "memory": "128Mi",
        "ephemeral-storage": "32Mi",
    }


@pytest.mark.parametrize(
    ("own", "agent_resources"),
    [
        ({}, ({"cpu": "10m", "memory": "64Mi"}, {"memory": "128Mi"})),
        (
            {"limits": {"cpu": 1, "memory": "1Gi"}},
            ({"cpu": "500m", "memory": "128Mi"}, {"cpu": "500m", "memory": "128Mi"}),
        ),
        (
            {
                "limits": {"cpu": "1", "memory": "1Gi"},
                "requests": {"cpu": "1000m", "memory": "1024Mi"},
            },
            ({"cpu": "500m", "memory": "128Mi"}, {"cpu": "500m", "memory": "128Mi"}),
        ),
        (
            {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "900m"}},
            ({"cpu": "10m", "memory": "64Mi"}, {"memory": "128Mi"}),
        ),
    ],
)
def test_a_guaranteed_pod_stays_guaranteed(own, agent_resources, settings, bundle):
    given = pod()
    given["spec"]["containers"][0]["resources"] = own
    resources = agent(inject(given, "shop", settings, bundle).pod)["resources"]
    storage = {"ephemeral-storage": "32Mi"}
    assert (resources["requests"], resources["limits"]) == tuple(
        {**one, **storage} for one in agent_resources
    )


@pytest.mark.parametrize(
    ("containers", "annotations", "limit"),
    [
        (1, {}, "128Mi"),
        (2, {}, "128Mi"),
        (3, {}, "152Mi"),
        (5, {}, "200Mi"),
        (16, {}, "464Mi"),
        (5, {"capsign.dev/memory-limit": "160Mi"}, "160Mi"),
    ],
)
def test_the_memory_limit_follows_the_number_of_sockets(
    containers, annotations, limit, settings, bundle
):
    """Whatever an agent holds for a container it holds for each: five with the limit of one could
    have the kernel end it.
    """
    given = pod(annotations=annotations)
    [first] = given["spec"]["containers"]
    given["spec"]["containers"] = [{**first, "name": f"c{one}"} for one in range(containers)]
    resources = agent(inject(given, "shop", settings, bundle).pod)["resources"]
    assert resources["limits"]["memory"] == limit


def test_quantities_are_written_as_the_api_server_keeps_them(settings, bundle):
    asked = {"capsign.dev/cpu-request": "0.1", "capsign.dev/memory-limit": "262144Ki"}
    resources = agent(inject(pod(annotations=asked), "shop", settings, bundle).pod)["resources"]
    assert (resources["requests"]["cpu"], resources["limits"]["memory"]) == ("100m", "256Mi")


def test_pull_secrets_are_added_once(settings, bundle):
    after = inject(pod(imagePullSecrets=[{"name": "own"}]), "shop", settings, bundle).pod
    assert after["spec"]["imagePullSecrets"] == [{"name": "own"}, {"name": "mirror"}]


def test_an_agent_that_cannot_find_the_adapter_is_warned_about(settings, bundle):
    """With the node's name servers the pod stayed in `Init:0/1` for ever, and nothing said why."""
    (warning,) = inject(pod(dnsPolicy="Default"), "shop", settings, bundle).warnings
    assert "do not know capsign-adapter.capsign-system.svc." in warning
    assert inject(pod(dnsPolicy="ClusterFirst"), "shop", settings, bundle).warnings == ()
    elsewhere = parse(b"adapter: {enrolment_targets: ['capsign.example.com:7444']}", "x")
    assert inject(pod(dnsPolicy="Default"), "shop", elsewhere, bundle).warnings == ()


def test_the_probe_is_where_the_image_has_it():
    assert (Path(agent_settings.__file__).parent / "probe.py").exists()
