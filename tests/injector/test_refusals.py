"""Which pods are refused, next to those just like them that are not."""

from __future__ import annotations

import copy
import json
import sys
from contextlib import nullcontext
from typing import Any

import pytest
from capsign_injector.inject import inject
from capsign_injector.refusal import Reason, Refusal
from capsign_injector.settings import parse

BUNDLE = ""


def pod(
    *containers: dict[str, Any], annotations: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    given = (
        [{"name": "app", "image": "a"}]
        if not containers
        else [{"image": "a", **one} for one in containers]
    )
    metadata = {"labels": {"capsign.dev/inject": "true"}, "annotations": annotations or {}}
    return {"metadata": metadata, "spec": {"containers": given, **spec}}


def mounts(*places: tuple[str, str], name: str = "app", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "volumeMounts": [{"name": volume, "mountPath": path, **more} for volume, path in places],
    }


def adding(*capabilities: str) -> dict[str, Any]:
    return {"name": "app", "securityContext": {"capabilities": {"add": list(capabilities)}}}


EMPTY = [{"name": "v", "emptyDir": {}}]
PRIVILEGED = {"name": "app", "securityContext": {"privileged": True}}
NODE = [{"name": "v", "hostPath": {"path": "/var/lib/kubelet/pods/1"}}]
REACHING = (
    "/", "/etc", "/etc/kubernetes/kubelet.conf", "/proc", "/proc/1/root", "/proc/sys", "/proc/sys/kernel", "/run",
    "/run/containerd/containerd.sock", "/var/run/crio/crio.sock", "/var/run/docker.sock", "/run/cri-dockerd.sock",
    "/run/k3s/containerd", "/var/lib", "/var/lib/kubelet", "/run/docker/containerd/containerd.sock", "/run/k0s/containerd.sock",
    "/var/lib/kubelet/checkpoints", "/var/lib/kubelet/kubeconfig", "/var/lib/k0s", "/etc/rancher/k3s",
    "/var/lib/rancher/k3s/agent/client-kubelet.key", "/var/snap/microk8s/common/run/containerd.sock",
    "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs", "/var/lib/containers/storage",
    "/var/lib/docker/overlay2", "/var/lib/kubelet/pki", "/var/lib/kubelet/pods", "/var/lib/x/../kubelet/",
    "/run/systemd", "/run/dbus", "/var/run/dbus/system_bus_socket", "/run/systemd/private", "/run/udev", "/run/user/0",
    "/run/libvirt", "/run/../etc", "/run//systemd//", "//sys", "/sys/", "/sys/fs/cgroup", "/sys/kernel", "/sys/class/../kernel",
    "/etc/cron.d", "/etc/systemd/system", "/etc/ld.so.preload", "/etc/shadow", "/etc/ssl", "/etc/ssl/private",
    "/etc/ssl/certs/..",
    "/usr", "/usr/bin", "/usr/local/bin", "/usr/share", "/bin", "/lib", "/boot", "/opt/cni/bin", "/root", "/root/.ssh", "/home",
    "/var", "/var/spool/cron", "/var/lib/cloud", "/var/lib/kubelet/plugins", "/var/lib/kubelet/device-plugins", "/var/logs",
    "/dev", "/dev/mem", "/dev/sda", "/dev/kmsg", "/procx", "/proc/sysrq-trigger", "/proc/sys/fs/binfmt_misc", "/tmp", "/srv",
    "", ".", "etc", "../etc", "/mnt", "/mnt/disks/..", "/mnt/diskss", "/data", "/var/log/../lib", "/hostetc",
)  # fmt: skip
NOT_REACHING = (
    "/dev/net/tun",
    "/dev/hugepages/",
    "/mnt/disks/ssd0",
    "/proc/sys/vm",
    "/proc/sys/net/core",
)
TO_READ = (
    "/var/log", "/var/log/pods", "//var//log/", "/var/lib/../log", "/etc/ssl/certs", "/etc/localtime", "/etc/os-release",
    "/run/udev/data", "/var/run/udev/data", "/sys/devices/system/cpu", "/usr/share/zoneinfo/Europe", "/etc/machine-id",
)  # fmt: skip


def hosted(path: str, kind: str | None = None, **mount: Any) -> dict[str, Any]:
    source = {"path": path, **({"type": kind} if kind is not None else {})}
    return pod(mounts(("v", "/x"), **mount), volumes=[{"name": "v", "hostPath": source}])


HOST_PROCESS = {"windowsOptions": {"hostProcess": True}}
SOCKET = ("capsign-socket-0", "/run/capsign")
ONLY_B = {"capsign.dev/containers": "b"}
INJECTED = {"capsign.dev/injected": "1"}

REFUSED: list[tuple[str, dict[str, Any], Reason, str]] = [
    ("hostPID", pod(hostPID=True), Reason.ISOLATION, "spec.hostPID"),
    ("shared processes", pod(shareProcessNamespace=True), Reason.ISOLATION, "spec.shareProcessNamespace"),
    ("host network", pod(hostNetwork=True), Reason.ISOLATION, "spec.hostNetwork"),
    ("windows", pod(os={"name": "windows"}), Reason.PLATFORM, "spec.os"),
    ("windows, old label", pod(nodeSelector={"beta.kubernetes.io/os": "windows"}), Reason.PLATFORM, "spec.os"),
    ("host process", pod({"name": "app", "securityContext": HOST_PROCESS}), Reason.PLATFORM, "spec.os"),
    ("host process pod", pod(securityContext=HOST_PROCESS), Reason.PLATFORM, "spec.os"),
    ("static pod", pod(annotations={"kubernetes.io/config.mirror": "x"}), Reason.PLATFORM, "config.mirror"),
    ("privileged", pod(PRIVILEGED), Reason.ISOLATION, "container app.securityContext.privileged"),
    ("privileged, said twice", pod(PRIVILEGED, hostUsers=True), Reason.ISOLATION, "privileged"),
    ("privileged neighbour", pod({"name": "b"}, PRIVILEGED, annotations=ONLY_B), Reason.ISOLATION, "app"),
    ("privileged init", pod(initContainers=[{**PRIVILEGED, "name": "i"}]), Reason.ISOLATION, "container i"),
    ("capability", pod(adding("cap_bpf")), Reason.ISOLATION, "capabilities"),
    ("all capabilities", pod(adding("CHOWN", "ALL")), Reason.ISOLATION, "capab"),
    ("kubelet's directory", pod(mounts(("v", "/x")), volumes=NODE), Reason.ISOLATION, "container app.volumeMounts"),
    ("user namespace, kubelet's directory", pod(mounts(("v", "/x")), volumes=NODE, hostUsers=False), Reason.ISOLATION, "app"),
    *((f"the node's {path}", pod(mounts(("v", "/x")), volumes=[{"name": "v", "hostPath": {"path": path}}]),
       Reason.ISOLATION, "container app.volumeMounts") for path in REACHING),
    *((f"the node's {path}, to read", hosted(path, readOnly=True), Reason.ISOLATION, "app.volumeMounts") for path in REACHING),
    *((f"the node's {path}, to write", hosted(path), Reason.ISOLATION, "app.volumeMounts") for path in TO_READ),
    *((f"the node's {path}, made there", hosted(path, "DirectoryOrCreate"), Reason.ISOLATION, "app.volumeMounts")
      for path in ("/run/systemd", "/etc/cron.d/x")),
    ("a socket among the logs", hosted("/var/log/x.sock", "Socket", readOnly=True), Reason.ISOLATION, "app.volumeMounts"),
    ("a disk among the disks", hosted("/mnt/disks/sda", "BlockDevice"), Reason.ISOLATION, "app.volumeMounts"),
    ("a part of the node", hosted("/", readOnly=True, subPath="var/log"), Reason.ISOLATION, "app.volumeMounts"),
    ("a part that leaves", hosted("/var/log", readOnly=True, subPath="x/../../lib"), Reason.ISOLATION, "app.volumeMounts"),
    ("a part said later", hosted("/var/log", readOnly=True, subPathExpr="$(X)"), Reason.ISOLATION, "app.volumeMounts"),
    ("propagated to the node", hosted("/mnt/disks/a", mountPropagation="Bidirectional"), Reason.ISOLATION, "volumeMounts"),
    ("the node, in an init container", pod({"name": "app"}, initContainers=[{**mounts(("v", "/x"), name="i"), "image": "a"}],
     volumes=[{"name": "v", "hostPath": {"path": "/run/systemd"}}]), Reason.ISOLATION, "container i"),
    ("the node, in a debug container", pod({"name": "app"}, ephemeralContainers=[mounts(("v", "/x"), name="d")],
     volumes=[{"name": "v", "hostPath": {"path": "/usr/bin"}}]), Reason.ISOLATION, "container d"),
    ("a repository that the node checks out", pod(volumes=[{"name": "v", "gitRepo": {"repository": "x"}}]),
     Reason.ISOLATION, "spec.volumes"),
    ("our container", pod({"name": "capsign-agent"}), Reason.COLLISION, "container capsign-agent"),
    ("our container, after", pod({"name": "capsign-agent"}, annotations=INJECTED), Reason.COLLISION, "container capsign-agent"),
    ("like our container", pod({"name": "capsign-agent-2"}), Reason.COLLISION, "container capsign-agent-2"),
    ("our ephemeral container", pod(ephemeralContainers=[{"name": "capsign-agent"}]), Reason.COLLISION, "capsign-agent"),
    ("our volume", pod(volumes=[{"name": "capsign-token", "emptyDir": {}}]), Reason.COLLISION, "spec.volumes"),
    ("mounts our token", pod(mounts(("capsign-token", "/x"))), Reason.ISOLATION, "container app.volumeMounts"),
    ("mounts our token, after", pod(mounts(("capsign-token", "/x")), annotations=INJECTED), Reason.ISOLATION, "app"),
    ("mounts our state as if a socket", pod(mounts(("capsign-state", "/run/capsign"), readOnly=True), annotations=INJECTED),
     Reason.ISOLATION, "app"),
    ("a socket writable, after", pod(mounts(SOCKET), annotations=INJECTED), Reason.ISOLATION, "app"),
    ("a socket elsewhere, after", pod(mounts(("capsign-socket-0", "/x"), readOnly=True), annotations=INJECTED),
     Reason.ISOLATION, "app"),
    ("a part of a socket's volume", pod(mounts(SOCKET, readOnly=True, subPath="s"), annotations=INJECTED),
     Reason.ISOLATION, "app"),
    ("another's socket", pod(*(mounts(SOCKET, readOnly=True, name=name) for name in "ab"),
     annotations=INJECTED), Reason.ISOLATION, "container b"),
    ("our volume as a device", pod({"name": "app", "volumeDevices": [{"name": "capsign-state", "devicePath": "/d"}]}),
     Reason.ISOLATION, "app"),
    ("an ephemeral container with our volume", pod(ephemeralContainers=[mounts(("capsign-socket-0", "/x"), name="debug")]),
     Reason.ISOLATION, "container debug"),
    ("at our place", pod(mounts(("v", "/run/capsign")), volumes=EMPTY), Reason.COLLISION, "app"),
    ("at our place, by dots", pod(mounts(("v", "/run/x/../capsign/")), volumes=EMPTY), Reason.COLLISION, "app"),
    ("at our place, by two slashes", pod(mounts(("v", "//run//capsign")), volumes=EMPTY), Reason.COLLISION, "app"),
    ("at our place, by the link", pod(mounts(("v", "/var/run/capsign")), volumes=EMPTY), Reason.COLLISION, "app"),
    ("below", pod(mounts(("v", "/run/capsign/s")), volumes=EMPTY), Reason.COLLISION, "app"),
    ("above, shared", pod(mounts(("v", "/run")), mounts(("v", "/x"), name="b"), volumes=EMPTY), Reason.COLLISION, "app"),
    ("above, read-only", pod(mounts(("v", "/run"), readOnly=True), volumes=EMPTY), Reason.COLLISION, "app"),
    ("above, a disk", pod(mounts(("v", "/run")), volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]),
     Reason.COLLISION, "app"),
    ("above, propagated", pod(mounts(("v", "/run"), mountPropagation="Bidirectional"), volumes=EMPTY), Reason.COLLISION, "app"),
    ("socket variable", pod({"name": "app", "env": [{"name": "CAPSIGN_SOCKET", "value": "/x"}]}), Reason.COLLISION, "app.env"),
    ("socket variable from elsewhere", pod({"name": "app", "env": [{"name": "CAPSIGN_SOCKET", "valueFrom": {}}]}),
     Reason.COLLISION, "app.env"),
    ("17 profiles", pod(annotations={f"capsign.dev/profile.a{number}": "default" for number in range(17)}),
     Reason.ANNOTATION, "profile.a0"),
    ("no such container", pod(annotations={"capsign.dev/containers": "web"}), Reason.ANNOTATION, "containers"),
    ("the agent itself", pod(annotations={"capsign.dev/containers": "capsign-agent"}), Reason.ANNOTATION, "containers"),
    ("a profile for nobody", pod(annotations={"capsign.dev/profile.web": "default"}), Reason.ANNOTATION, "profile.web"),
    ("17 containers", pod(*({"name": f"c{number}"} for number in range(17))), Reason.TOO_LARGE, "containers"),
    ("10,000 containers", pod(*({"name": f"c{number}"} for number in range(10_000))), Reason.TOO_LARGE, "spec.containers"),
    ("a name twice", pod({"name": "a"}, {"name": "a"}), Reason.MALFORMED, "spec.containers"),
    ("a name twice, init", pod(initContainers=[{"name": "app"}]), Reason.MALFORMED, "spec.containers"),
    ("a name with controls", pod({"name": "a\x1b[2J"}), Reason.MALFORMED, "spec.containers"),
    ("a name that is TOML", pod({"name": 'a"\n[upstream]'}), Reason.MALFORMED, "spec.containers"),
    ("no containers", pod(containers=[]), Reason.MALFORMED, "spec.containers"),
    ("containers that are none", pod(containers=["x"]), Reason.MALFORMED, "spec.containers[0]"),
    ("a mount without a place", pod({"name": "a", "volumeMounts": [{"name": "v"}]}), Reason.MALFORMED, "volumeMounts[0]"),
    ("a volume that is text", pod(volumes="x"), Reason.MALFORMED, "spec.volumes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "reason", "field"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED]
)
def test_refused(given, reason, field, settings):
    before = copy.deepcopy(given)
    with pytest.raises(Refusal) as caught:
        inject(given, "shop", settings, BUNDLE)
    assert (caught.value.reason, given) == (reason, before)
    assert field in caught.value.field
    assert caught.value.sentence.isprintable()
    assert len(caught.value.sentence) < 400


TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("hostIPC", pod(hostIPC=True)),
    ("false is not true", pod(hostPID=False, shareProcessNamespace=False, hostNetwork=False)),
    ("linux", pod(os={"name": "linux"}, nodeSelector={"kubernetes.io/os": "linux"})),
    ("privileged in a user namespace", pod(PRIVILEGED, hostUsers=False)),
    ("a small capability", pod(adding("NET_ADMIN"))),
    ("a host path nobody mounts", pod(volumes=NODE)),
    *((f"the node's {path}", pod(mounts(("v", "/x")), volumes=[{"name": "v", "hostPath": {"path": path}}]))
      for path in NOT_REACHING),
    *((f"the node's {path}, to read", hosted(path, readOnly=True)) for path in TO_READ),
    ("a part of the logs", hosted("/var/log", "Directory", readOnly=True, subPath="app")),
    ("beside our place", pod(mounts(("v", "/run/capsignature"), ("v", "/run/app")), volumes=EMPTY)),
    ("above, its own", pod(mounts(("v", "/var/run")), volumes=EMPTY)),
    ("at our place in a container without a socket",
     pod({"name": "app"}, mounts(("v", "/run/capsign"), name="b"), volumes=EMPTY, annotations={"capsign.dev/containers": "app"})),
    ("socket variable as we set it",
     pod({"name": "app", "env": [{"name": "CAPSIGN_SOCKET", "value": "/run/capsign/s/agent.sock"}]})),
    ("a name like ours", pod({"name": "capsign-client"})),
    ("16 containers", pod(*({"name": f"c{number}"} for number in range(16)))),
    ("17 containers, some chosen",
     pod(*({"name": f"c{number}"} for number in range(17)), annotations={"capsign.dev/containers": "c16,c0"})),
    ("nulls", pod(initContainers=None, volumes=None, ephemeralContainers=None, securityContext=None)),
]  # fmt: skip


@pytest.mark.parametrize("given", [one[1] for one in TAKEN], ids=[one[0] for one in TAKEN])
def test_taken(given, settings):
    assert inject(given, "shop", settings, BUNDLE).containers


def test_the_platform_team_can_take_what_reaches_the_node_and_people_are_told():
    lenient = parse(b"allow_node_access: true\nallow_host_network: true", "x")
    for given in (pod(PRIVILEGED), pod(mounts(("v", "/x")), volumes=NODE)):
        (warning,) = inject(given, "shop", lenient, BUNDLE).warnings
        assert "`app`" in warning
    assert inject(
        pod(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"), "shop", lenient, BUNDLE
    ).containers == ("app",)
    with pytest.raises(Refusal, match="dnsPolicy"):
        inject(pod(hostNetwork=True), "shop", lenient, BUNDLE)
    with pytest.raises(Refusal, match="hostPID"):
        inject(pod(hostPID=True), "shop", lenient, BUNDLE)


@pytest.mark.parametrize("source", ["kubernetes", "workload-api"])
@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("10.0.0.1", False),
        ("[fd00::1]", False),
        ("kms.example.org", False),
        ("kms.ns.svc", True),
        ("kms", True),
    ],
)
def test_who_asks_for_an_adapter_outside_needs_no_dns_of_the_cluster(source, host, inside):
    """With an address as target, too, a pod on its node's network was refused for its
    `dnsPolicy`.
    """
    settings: dict[str, Any] = {
        "adapter": {"targets": [f"{host}:7443"]},
        "allow_host_network": True,
        "identity": {"source": source},
    }
    if source == "kubernetes":
        settings["adapter"]["enrolment_targets"] = [f"{host}:7444"]
    else:
        settings["identity"]["csi"] = {"driver": "csi.spiffe.io"}
    read = parse(json.dumps(settings).encode(), "x")
    with pytest.raises(Refusal, match="dnsPolicy") if inside else nullcontext():
        assert inject(pod(hostNetwork=True), "shop", read, BUNDLE).containers == ("app",)
    assert bool(inject(pod(dnsPolicy="Default"), "shop", read, BUNDLE).warnings) == inside


def test_paths_that_the_platform_team_calls_harmless_are_taken_and_nothing_above_or_beside_them():
    ours = parse(b"harmless_host_paths: [/srv/data/]", "x")
    for path in ("/srv/data", "/srv/data/app", "/srv//data/"):
        assert inject(hosted(path), "shop", ours, BUNDLE).warnings == ()
    for given in (
        hosted("/srv"),
        hosted("/srv/database"),
        hosted("/srv/data/../x"),
        hosted("/srv/data", subPathExpr="$(X)"),
    ):
        with pytest.raises(Refusal, match="harmless_host_paths"):
            inject(given, "shop", ours, BUNDLE)


def test_a_mount_that_would_be_harmless_if_it_were_read_only_is_told_so(settings):
    with pytest.raises(Refusal, match="`readOnly: true`"):
        inject(hosted("/var/log"), "shop", settings, BUNDLE)


def test_without_the_label_nothing_is_even_read(settings):
    for labels in ({}, {"capsign.dev/inject": "false"}, {"capsign.dev/inject": None}, None, "x"):
        given = {"metadata": {"labels": labels}, "spec": {"containers": 7, "hostPID": True}}
        result = inject(given, "shop", settings, BUNDLE)
        assert (result.pod, result.containers) == (given, ())
    assert inject({}, "shop", settings, BUNDLE).pod == {}


@pytest.mark.parametrize(
    "value",
    ["True", "TRUE", "yes", "1", "on", "enabled", " true", "true ", "", "no", True, 1, False],
)
def test_a_label_that_says_neither_true_nor_false_is_refused(value, settings):
    """Such pods ran without an agent, and their applications told of a socket that is not there."""
    given = {
        "metadata": {"labels": {"capsign.dev/inject": value}},
        "spec": {"containers": [{"name": "app", "image": "a"}]},
    }
    with pytest.raises(Refusal, match=r'Write `capsign\.dev/inject: "true"`') as caught:
        inject(given, "shop", settings, BUNDLE)
    assert (caught.value.reason, caught.value.field) == (
        Reason.ANNOTATION,
        "metadata.labels[capsign.dev/inject]",
    )


@pytest.mark.parametrize("annotation", ["true", "false", ""])
def test_the_annotation_in_the_labels_place_is_told(annotation, settings):
    given = {
        "metadata": {"annotations": {"capsign.dev/inject": annotation}},
        "spec": {"containers": 7},
    }
    result = inject(given, "shop", settings, BUNDLE)
    assert (result.pod, result.containers) == (given, ())
    assert "move it to `metadata.labels`" in result.warnings[0]


def test_name_servers_of_the_pods_own_are_told_what_they_must_know(settings):
    """With the cluster's server and no search domains, or with another server, the pod hung in
    `Init` and nothing said why.
    """
    own = pod(dnsPolicy="None", dnsConfig={"nameservers": ["10.96.0.10"]})
    (warning,) = inject(own, "shop", settings, BUNDLE).warnings
    assert "capsign-adapter.capsign-system.svc" in warning
    assert "`searches`" in warning
    assert inject(pod(dnsPolicy="ClusterFirst"), "shop", settings, BUNDLE).warnings == ()


def steps(given, settings):
    """How much Python runs to inject a pod: calls, and each item that a generator gives."""
    count = 0

    def step(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(step)
    try:
        inject(given, "shop", settings, BUNDLE)
    finally:
        sys.setprofile(None)
    return count


def many_mounts(number):
    app = mounts(*((f"v{index}", "/run") for index in range(number)))
    other = mounts(*(("w", f"/x{index}") for index in range(number)), name="b")
    volumes = [{"name": f"v{index}", "emptyDir": {}} for index in range(number)]
    return pod(app, other, volumes=volumes, annotations={"capsign.dev/containers": "app"})


def many_annotations(number):
    return pod(annotations={f"capsign.dev/loglevel-{index}": "" for index in range(number)})


@pytest.mark.parametrize("many", [many_mounts, many_annotations])
def test_a_pod_that_is_twice_as_large_is_twice_the_work(many, settings):
    """Every mount above our place was held against every mount of every other container: one pod of
    3 MiB, from anybody who may make pods, kept the thread that answers reviews for minutes, and
    with it every labelled pod of the cluster.
    """
    assert steps(many(400), settings) < 3 * steps(many(200), settings)


def test_what_is_not_warned_about_is_not_guessed_at_either(settings):
    """What each of ten thousand misspelt annotations meant took the same thread a minute, to say
    sixteen of them.
    """
    assert steps(many_annotations(400), settings) < 20_000
