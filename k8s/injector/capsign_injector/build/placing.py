"""Puts agent, volumes and sockets where an earlier injection has put them, or where they belong.
Pure.

Everything else in the pod is unchanged, and shared with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from capsign_injector.build.volumes import socket_mount
from capsign_injector.names import (
    AGENT,
    EMPTY_VOLUME,
    OURS,
    SOCKET_ENV,
    SOCKET_PATH,
    SOCKET_VOLUME,
    STATE_VOLUME,
    TOKEN_VOLUME,
)

_KINDS = ("initContainers", "containers")


def copied(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the spec whose containers may be changed."""
    made = dict(spec)
    for kind in _KINDS:
        if made.get(kind):
            made[kind] = [dict(one) for one in made[kind]]
    return made


def put(holder: dict[str, Any], field: str, item: dict[str, Any], *, key: str = "name") -> None:
    """Put `item` in place of the first with the same key, or at the end of the list."""
    items = holder.get(field) or []
    at = next((index for index, one in enumerate(items) if one.get(key) == item[key]), len(items))
    holder[field] = [*items[:at], item, *items[at + 1 :]]


def put_agent(spec: dict[str, Any], agent: dict[str, Any]) -> None:
    """Put the agent first of the init containers, so that all others can sign."""
    before = spec.get("initContainers") or []
    existing = [one for one in before if one["name"] == AGENT]
    if existing:
        agent = _as_admitted(agent, existing[0])
    spec["initContainers"] = [agent, *(one for one in before if one["name"] != AGENT)]


def put_sockets(spec: dict[str, Any], containers: Sequence[str]) -> None:
    """Mount into each of these containers the socket of its number."""
    for one in (one for kind in _KINDS for one in spec.get(kind) or ()):
        if one["name"] in containers:
            mount = socket_mount(containers.index(one["name"]))
            put(one, "volumeMounts", mount, key="mountPath")
            put(one, "env", _socket_env())


def clear(spec: dict[str, Any], containers: Sequence[str]) -> None:
    """Remove what an earlier injection put there and this one does not. All mounts of our volumes
    are socket mounts: see `judge.collisions`.
    """
    sockets = {f"{SOCKET_VOLUME}{index}" for index in range(len(containers))}
    keep = {STATE_VOLUME, TOKEN_VOLUME, EMPTY_VOLUME, *sockets}
    spec["volumes"] = [
        one
        for one in spec.get("volumes") or ()
        if not one["name"].startswith(OURS) or one["name"] in keep
    ]
    for one in (one for kind in _KINDS for one in spec.get(kind) or ()):
        if one["name"] not in {AGENT, *containers}:
            _clear_container(one)


def _clear_container(container: dict[str, Any]) -> None:
    mounts = container.get("volumeMounts") or ()
    others = [one for one in mounts if not str(one["name"]).startswith(OURS)]
    if len(others) < len(mounts):
        _leave(container, "volumeMounts", others)
        variables = [one for one in container.get("env") or () if one != _socket_env()]
        _leave(container, "env", variables)


def _leave(holder: dict[str, Any], field: str, items: list[Any]) -> None:
    if items:
        holder[field] = items
    else:
        holder.pop(field, None)


def _socket_env() -> dict[str, Any]:
    return {"name": SOCKET_ENV, "value": SOCKET_PATH}


def _as_admitted(ours: dict[str, Any], existing: dict[str, Any]) -> dict[str, Any]:
    """Our container with what the API server's own admission has added to it: a LimitRange's CPU
    limit if we state none, AlwaysPullImages, and OpenShift's user if we name none. These are
    checked again after us. Any other change is undone.
    """
    kept = dict(ours)
    theirs = existing.get("securityContext") or {}
    given = {
        name: theirs[name]
        for name in ("runAsUser", "runAsGroup")
        if name in theirs and name not in ours["securityContext"]
    }
    if given:
        kept["securityContext"] = {**ours["securityContext"], **given}
    if existing.get("imagePullPolicy") == "Always":
        kept["imagePullPolicy"] = "Always"
    limit = ((existing.get("resources") or {}).get("limits") or {}).get("cpu")
    if limit is not None and "cpu" not in ours["resources"]["limits"]:
        kept["resources"] = {
            **ours["resources"],
            "limits": {"cpu": limit, **ours["resources"]["limits"]},
        }
    return kept
