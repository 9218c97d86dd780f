"""From pod and settings to the injected pod. Pure, and idempotent: `inject(inject(x)) ==
inject(x)`.

It is called again for the same pod: the API server reinvokes webhooks when another one changed it,
and a template that was injected offline is admitted later. So each thing is put where it is
already, and everything else is left as it came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capsign_injector import quantity
from capsign_injector.build import agent_config, sidecar
from capsign_injector.judge import refusals
from capsign_injector.read import annotations as asking
from capsign_injector.read import pod as pods
from capsign_injector.read.annotations import Wanted
from capsign_injector.refusal import Reason, Refusal, shown
from capsign_injector.settings import Settings

FORMAT = "1"
"""Version of what an injection makes, in the annotation `capsign.dev/injected`."""

_KINDS = ("initContainers", "containers")

SHORT_GRACE_S = 5
"""With less time than this to end, the agent may not hand in all its records."""


@dataclass(frozen=True, slots=True)
class Result:
    """The injected pod, and what the person who applied it should know."""

    pod: dict[str, Any]
    warnings: tuple[str, ...]
    containers: tuple[str, ...]
    """Those with a socket, in the order of their sockets; empty: the pod did not ask to be
    injected.
    """


def wants(pod: Mapping[str, Any]) -> bool:
    """Whether the pod carries the label. What has no readable labels does not. Raises Refusal for a
    value that says neither yes nor no: a pod that was meant to sign must not run without an agent.
    """
    value = _of(pod, "labels").get(asking.LABEL)
    if value is None or value in ("true", "false"):
        return value == "true"
    told = f'is "{shown(value)}"' if isinstance(value, str) else "is no text"
    sentence = (
        f'The label `{asking.LABEL}` {told}. Write `{asking.LABEL}: "true"`, with the quotes, '
        f'or "false" for no agent.'
    )
    raise Refusal(Reason.ANNOTATION, f"metadata.labels[{asking.LABEL}]", sentence)


def _of(pod: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    metadata = pod.get("metadata")
    found = metadata.get(field) if isinstance(metadata, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def inject(pod: Mapping[str, Any], namespace: str, settings: Settings, bundle_pem: str) -> Result:
    """A pod with the agent in it; `pod` is not changed, and what stays as it is is shared with it.
    A pod without the label comes back as it is.

    `bundle_pem` may be empty, for looking only: such an agent trusts no adapter. Raises Refusal for
    a pod that must not run so, and SettingsError for a bundle that is none.
    """
    if not wants(pod):
        misplaced = asking.LABEL in _of(pod, "annotations") and asking.LABEL not in _of(
            pod, "labels"
        )
        return Result(dict(pod), (asking.MISPLACED,) if misplaced else (), ())
    view = pods.read(pod)
    wanted = asking.read(view.annotations, namespace, settings)
    warnings = [*wanted.warnings, *refusals.refuse_pod(view, settings)]
    injected = asking.INJECTED in view.annotations
    refusals.refuse_collisions(view, injected=injected)
    chosen = refusals.choose(view, wanted.containers, _chosen_before(view) if injected else ())
    refusals.refuse_profiles(wanted.of_container, chosen)
    for one in view.everyone:
        if one.name in chosen:
            refusals.refuse_container(view, one)

    sockets = [
        agent_config.Socket(index, name, wanted.profile_of(name).grants)
        for index, name in enumerate(chosen)
    ]
    config = agent_config.text(settings, sockets, wanted.log_level, bundle_pem)
    gate = wanted.profile.gate_readiness
    agent = sidecar.container(
        settings,
        config,
        _resources(view, wanted),
        len(chosen),
        wanted.otlp_endpoint,
        gate_readiness=gate,
    )
    spec = dict(pod["spec"])
    for kind in _KINDS:
        if spec.get(kind):
            spec[kind] = [dict(one) for one in spec[kind]]
    if injected:
        _clear(spec, chosen)
    _place_agent(spec, agent)
    for volume in sidecar.volumes(settings, len(chosen)):
        _put(spec, "volumes", volume)
    for secret in settings.image_pull_secrets:
        _put(spec, "imagePullSecrets", {"name": secret})
    for kind in _KINDS:
        for one in spec.get(kind) or ():
            if one["name"] in chosen:
                _put(
                    one,
                    "volumeMounts",
                    sidecar.socket_mount(chosen.index(one["name"])),
                    key="mountPath",
                )
                _put(one, "env", sidecar.socket_env())
    metadata = {**pod["metadata"], "annotations": {**view.annotations, asking.INJECTED: FORMAT}}
    after = {**pod, "metadata": metadata, "spec": spec}
    return Result(
        after, tuple([*warnings, *_advice(view, settings)][: asking.MAX_WARNINGS]), chosen
    )


def _chosen_before(view: pods.Pod) -> list[str]:
    """Containers that have a socket since an earlier injection, by its number."""
    mounts = [
        (one.name, mount.name)
        for one in (*view.init, *view.spec.containers)
        if one.name != sidecar.AGENT
        for mount in one.volume_mounts or ()
        if refusals.is_socket_mount(mount)
    ]
    indices = sidecar.socket_indices(mounts)
    return sorted(indices, key=lambda name: (indices[name], name))


def _resources(view: pods.Pod, wanted: Wanted) -> sidecar.Resources:
    """The agent's resources. A pod whose quality of service is Guaranteed stays so: there requests
    are limits.
    """
    profile = wanted.profile
    memory_limit = quantity.memory(wanted.memory_limit)
    ephemeral = quantity.memory(quantity.parse(profile.ephemeral_storage))
    cpu_limit = quantity.cpu(quantity.parse(profile.cpu_limit)) if profile.cpu_limit else ""
    if _guaranteed(view):
        cpu = quantity.cpu(wanted.cpu_request) if wanted.cpu_asked else cpu_limit
        cpu = cpu or quantity.cpu(quantity.parse(profile.cpu_request_max))
        return sidecar.Resources(cpu, cpu, memory_limit, memory_limit, ephemeral)
    memory_request = quantity.memory(quantity.parse(profile.memory_request))
    return sidecar.Resources(
        quantity.cpu(wanted.cpu_request), cpu_limit, memory_request, memory_limit, ephemeral
    )


def _guaranteed(view: pods.Pod) -> bool:
    """Kubernetes' own rule where the pod itself has no resources: every container limits CPU and
    memory and requests as much.
    """
    if view.spec.resources is not None:
        return False
    for one in (*view.init, *view.spec.containers):
        if one.name == sidecar.AGENT:
            continue
        limits = (one.resources and one.resources.limits) or {}
        requests = (one.resources and one.resources.requests) or {}
        for name in ("cpu", "memory"):
            if name not in limits or not _same(requests.get(name, limits[name]), limits[name]):
                return False
    return True


def _same(one: object, other: object) -> bool:
    try:
        return quantity.parse(str(one)) == quantity.parse(str(other))
    except quantity.NotAQuantityError:
        return False


def _clear(spec: dict[str, Any], chosen: Sequence[str]) -> None:
    """Takes away what an earlier injection put there and this one does not. Mounts of ours are
    socket mounts: see refusals.
    """
    volumes = {f"{sidecar.SOCKET_VOLUME}{index}" for index in range(len(chosen))}
    keep = {sidecar.STATE_VOLUME, sidecar.TOKEN_VOLUME, sidecar.EMPTY_VOLUME, *volumes}
    spec["volumes"] = [
        one
        for one in spec.get("volumes") or ()
        if not one["name"].startswith(sidecar.OURS) or one["name"] in keep
    ]
    for kind in _KINDS:
        for one in spec.get(kind) or ():
            mounts = one.get("volumeMounts") or ()
            if (
                one["name"] in chosen
                or one["name"] == sidecar.AGENT
                or not any(_ours(each) for each in mounts)
            ):
                continue
            _leave(one, "volumeMounts", [each for each in mounts if not _ours(each)])
            _leave(
                one, "env", [each for each in one.get("env") or () if each != sidecar.socket_env()]
            )


def _leave(holder: dict[str, Any], field: str, items: list[Any]) -> None:
    if items:
        holder[field] = items
    else:
        holder.pop(field, None)


def _ours(mount: Mapping[str, Any]) -> bool:
    return str(mount["name"]).startswith(sidecar.OURS)


def _place_agent(spec: dict[str, Any], agent: dict[str, Any]) -> None:
    """First of the init containers, so that all others can sign."""
    before = spec.get("initContainers") or []
    existing = [one for one in before if one["name"] == sidecar.AGENT]
    if existing:
        agent = sidecar.keep_admitted(agent, existing[0])
    spec["initContainers"] = [agent, *(one for one in before if one["name"] != sidecar.AGENT)]


def _put(holder: dict[str, Any], field: str, item: dict[str, Any], *, key: str = "name") -> None:
    """`item` in the place of the first with the same key, or at the end of the list."""
    items = holder.get(field) or []
    at = next((index for index, one in enumerate(items) if one.get(key) == item[key]), len(items))
    holder[field] = [*items[:at], item, *items[at + 1 :]]


def _advice(view: pods.Pod, settings: Settings) -> list[str]:
    warnings = []
    host = settings.cluster_name
    if host:
        if view.spec.dns_policy == "Default":
            told = (
                f"With `dnsPolicy: Default` the pod asks its node's name servers, which do "
                f"not know {host}."
            )
            warnings.append(f"{told} Its agent would never start. Remove it, or use ClusterFirst.")
        elif view.spec.dns_policy == "None":
            told = (
                f"With `dnsPolicy: None` the agent starts only if the servers in `dnsConfig` "
                f"know {host}:"
            )
            warnings.append(
                f"{told} name the cluster's, and its domain (cluster.local) in `searches`."
            )
    grace = view.spec.termination_grace_period_seconds
    if grace is not None and grace < SHORT_GRACE_S:
        fix = f"Give it {SHORT_GRACE_S} or more."
        warnings.append(
            f"With `terminationGracePeriodSeconds: {grace}` the agent may end before its "
            f"records are handed in. {fix}"
        )
    if view.spec.resources is not None:
        warnings.append("The pod has `resources` of its own: they must leave room for the agent's.")
    return warnings
