"""Pods as Hypothesis makes them, and what others do to a pod between two calls of our webhook."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

LABELLED = {"capsign.dev/inject": "true"}
NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).filter(
    lambda name: not name.startswith("capsign")
)
KEYS = st.from_regex(r"[a-z]{1,5}(\.[a-z]{2,5})?/[a-z0-9~.-]{0,6}[a-z]", fullmatch=True).filter(
    lambda key: "capsign" not in key
)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
QUANTITIES = {
    "cpu": st.sampled_from(["10m", "0.5", "2", "1500m"]),
    "memory": st.sampled_from(["64Mi", "1Gi", "128M", "1e9"]),
}

VOLUME_SOURCES: list[st.SearchStrategy[dict[str, Any]]] = [
    st.just({"emptyDir": {}}),
    st.just({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
    st.just({"configMap": {"name": "c", "optional": True}}),
    st.just({"secret": {"secretName": "s", "defaultMode": 256}}),
    st.just({"persistentVolumeClaim": {"claimName": "data"}}),
    st.just(
        {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
    ),
    st.just({"csi": {"driver": "csi.example.com", "readOnly": True}}),
    st.just(
        {"projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "t"}}]}}
    ),
    st.just({"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}),
]
OPEN_SOURCES = [
    *VOLUME_SOURCES,
    st.just({"hostPath": {"path": "/mnt/disks/0"}}),
    st.just({"nfs": {"server": "n", "path": "/"}}),
]


def maybe(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | value


def having(
    required: dict[str, Any], **optional: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


RESTRICTED_CONTEXT = having(
    {
        "allowPrivilegeEscalation": st.just(False),
        "capabilities": st.sampled_from(
            [{"drop": ["ALL"]}, {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}]
        ),
    },
    runAsUser=st.integers(1, 70_000),
    readOnlyRootFilesystem=st.booleans(),
    runAsGroup=st.integers(0, 70_000),
)
OPEN_CONTEXT = having(
    {},
    runAsUser=st.integers(0, 70_000),
    runAsNonRoot=st.booleans(),
    capabilities=st.sampled_from([{}, {"add": ["NET_ADMIN"]}, {"drop": ["ALL"]}]),
    seccompProfile=st.sampled_from([{"type": "Unconfined"}, {"type": "RuntimeDefault"}]),
    procMount=st.just("Default"),
    seLinuxOptions=st.just({"level": "s0:c1"}),
)
RESTRICTED_POD = having(
    {"runAsNonRoot": st.just(True), "seccompProfile": st.just({"type": "RuntimeDefault"})},
    fsGroup=st.integers(1, 70_000),
    supplementalGroups=st.lists(st.integers(1, 9), max_size=3),
    fsGroupChangePolicy=st.just("OnRootMismatch"),
    appArmorProfile=st.just({"type": "RuntimeDefault"}),
)
OPEN_POD = having(
    {},
    runAsUser=st.integers(0, 70_000),
    runAsGroup=st.integers(0, 70_000),
    runAsNonRoot=st.booleans(),
    fsGroup=st.integers(0, 70_000),
    seccompProfile=st.just({"type": "Unconfined"}),
    seLinuxOptions=st.just({"role": "r", "type": "spc_t"}),
    appArmorProfile=st.just({"type": "Unconfined"}),
    supplementalGroups=st.lists(st.integers(0, 9), max_size=3),
)


@st.composite
def _container(
    draw: st.DrawFn, name: str, volumes: list[str], *, init: bool, restricted: bool
) -> dict[str, Any]:
    one: dict[str, Any] = {"name": name, "image": "registry.example/app:1"}
    if restricted or draw(st.booleans()):
        one["securityContext"] = draw(RESTRICTED_CONTEXT if restricted else OPEN_CONTEXT)
    names = draw(st.lists(st.from_regex(r"[A-Z]{1,6}", fullmatch=True), max_size=3))
    if names or draw(st.booleans()):
        one["env"] = [
            {"name": each, "value": draw(TEXT)}
            if draw(st.booleans())
            else {"name": each, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
            for each in names
        ]
    mounted = draw(st.lists(st.sampled_from(volumes), max_size=3)) if volumes else []
    if mounted or draw(st.booleans()):
        one["volumeMounts"] = [
            {
                "name": each,
                "mountPath": f"/mnt/{index}",
                **({"readOnly": draw(st.booleans())} if draw(st.booleans()) else {}),
            }
            for index, each in enumerate(mounted)
        ]
    if draw(st.booleans()):
        one["resources"] = {
            kind: draw(having({}, **QUANTITIES))
            for kind in draw(st.sets(st.sampled_from(["requests", "limits"])))
        }
    if init and draw(st.booleans()):
        one["restartPolicy"] = "Always"
    if draw(st.booleans()):
        one["ports"] = [{"containerPort": draw(st.integers(1, 65_535)), "name": "p"}]
    if not init and draw(st.booleans()):
        one["livenessProbe"] = {"httpGet": {"path": "/", "port": "p"}}
    return one


@st.composite
def pods(draw: st.DrawFn, *, restricted: bool = False) -> dict[str, Any]:
    """A labelled pod that may be injected and that Kubernetes' schemas accept."""
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=6))
    volumes = draw(st.lists(NAMES, unique=True, max_size=4))
    inits = draw(st.integers(0, len(names) - 1))
    containers = [
        draw(_container(name, volumes, init=index < inits, restricted=restricted))
        for index, name in enumerate(names)
    ]
    spec: dict[str, Any] = {"containers": containers[inits:]}
    if inits or draw(st.booleans()):
        spec["initContainers"] = containers[:inits]
    if volumes or draw(st.booleans()):
        sources = VOLUME_SOURCES if restricted else OPEN_SOURCES
        spec["volumes"] = [{"name": name, **draw(st.one_of(sources))} for name in volumes]
    if restricted or draw(st.booleans()):
        spec["securityContext"] = draw(RESTRICTED_POD if restricted else OPEN_POD)
    spec |= draw(
        having(
            {},
            restartPolicy=st.sampled_from(["Always", "OnFailure", "Never"]),
            serviceAccountName=NAMES,
            automountServiceAccountToken=st.booleans(),
            terminationGracePeriodSeconds=st.integers(0, 90),
            hostUsers=st.booleans(),
            hostAliases=st.just([{"ip": "10.0.0.1", "hostnames": ["h"]}]),
            tolerations=st.just([{"operator": "Exists"}]),
            nodeSelector=st.just({"kubernetes.io/os": "linux"}),
            imagePullSecrets=st.lists(
                having({"name": NAMES}), max_size=2, unique_by=lambda one: one["name"]
            ),
            topologySpreadConstraints=st.just(
                [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                    }
                ]
            ),
            priorityClassName=NAMES,
            runtimeClassName=NAMES,
            resources=st.just({"limits": {"cpu": "8", "memory": "8Gi"}}),
        )
    )
    metadata: dict[str, Any] = {
        "labels": {**draw(st.dictionaries(KEYS, NAMES, max_size=2)), **LABELLED}
    }
    metadata |= draw(
        st.sampled_from(
            [{"name": "pod"}, {"generateName": "pod-"}, {"name": "pod", "namespace": "shop"}]
        )
    )
    annotations = draw(maybe(st.dictionaries(KEYS, TEXT, max_size=3)))
    if draw(st.booleans()):
        chosen = draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
        annotations = {**(annotations or {}), "capsign.dev/containers": ",".join(chosen)}
        if draw(st.booleans()):
            annotations[f"capsign.dev/profile.{chosen[-1]}"] = "receipts"
    if annotations is not None:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _everyone(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def defaulted(pod: dict[str, Any]) -> dict[str, Any]:
    """As the API server fills it in (k8s.io/kubernetes/pkg/apis/core/v1/defaults.go), and its
    ServiceAccount admission.
    """
    pod = copy.deepcopy(pod)
    spec = pod["spec"]
    for key, value in {
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
    }.items():
        spec.setdefault(key, value)
    for one in _everyone(pod):
        one.setdefault("imagePullPolicy", "IfNotPresent")
        one.setdefault("terminationMessagePath", "/dev/termination-log")
        one.setdefault("terminationMessagePolicy", "File")
        resources = one.setdefault("resources", {})
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
        for probe in ("livenessProbe", "startupProbe"):
            if probe in one:
                for key, value in {
                    "timeoutSeconds": 1,
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "failureThreshold": 3,
                }.items():
                    one[probe].setdefault(key, value)
        place = "/var/run/secrets/kubernetes.io/serviceaccount"
        mounts = one.setdefault("volumeMounts", [])
        if not any(each["mountPath"] == place for each in mounts):
            mounts.append({"name": "kube-api-access-abcde", "mountPath": place, "readOnly": True})
    volumes = spec.setdefault("volumes", [])
    for volume in volumes:
        for kind in ("configMap", "secret", "downwardAPI", "projected"):
            if kind in volume:
                volume[kind].setdefault("defaultMode", 420)
        for source in volume.get("projected", {}).get("sources", ()):
            source.get("serviceAccountToken", {}).setdefault("expirationSeconds", 3600)
    if not any(each["name"] == "kube-api-access-abcde" for each in volumes):
        volumes.append(
            {
                "name": "kube-api-access-abcde",
                "projected": {
                    "defaultMode": 420,
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
                    ],
                },
            }
        )
    return pod


def limit_ranged(pod: dict[str, Any]) -> dict[str, Any]:
    """A LimitRange's defaults where a container states none."""
    pod = copy.deepcopy(pod)
    for one in _everyone(pod):
        resources = one.setdefault("resources", {})
        resources.setdefault("limits", {}).setdefault("cpu", "750m")
        resources.setdefault("requests", {}).setdefault("cpu", resources["limits"]["cpu"])
    return pod


def always_pulled(pod: dict[str, Any]) -> dict[str, Any]:
    """The admission plugin AlwaysPullImages."""
    pod = copy.deepcopy(pod)
    for one in _everyone(pod):
        one["imagePullPolicy"] = "Always"
    return pod


def meshed(pod: dict[str, Any]) -> dict[str, Any]:
    """A service mesh's injector: a native sidecar before everything, an init container, an ordinary
    container at the end.
    """
    pod = copy.deepcopy(pod)
    if any(one["name"] == "mesh-proxy" for one in _everyone(pod)):
        return pod
    spec = pod["spec"]
    spec["initContainers"] = [
        {"name": "mesh-proxy", "image": "registry.example/mesh:1", "restartPolicy": "Always"},
        {"name": "mesh-init", "image": "registry.example/mesh:1"},
        *(spec.get("initContainers") or ()),
    ]
    spec["containers"] = [
        *spec["containers"],
        {"name": "mesh-stats", "image": "registry.example/mesh:1"},
    ]
    spec["volumes"] = [{"name": "mesh-data", "emptyDir": {}}, *(spec.get("volumes") or ())]
    pod["metadata"].setdefault("annotations", {})["mesh.example/status"] = "injected"
    return pod


def watched(pod: dict[str, Any]) -> dict[str, Any]:
    """An observability injector: a variable and a mount in every container, the agent's too."""
    pod = copy.deepcopy(pod)
    if any(one["name"] == "watch" for one in pod["spec"].get("volumes") or ()):
        return pod
    pod["spec"]["volumes"] = [
        *(pod["spec"].get("volumes") or ()),
        {"name": "watch", "emptyDir": {}},
    ]
    for one in _everyone(pod):
        one["env"] = [{"name": "WATCH", "value": "1"}, *(one.get("env") or ())]
        one["volumeMounts"] = [
            {"name": "watch", "mountPath": "/watch"},
            *(one.get("volumeMounts") or ()),
        ]
    return pod


OTHERS = (defaulted, limit_ranged, always_pulled, meshed, watched)
