"""What a pod asks for by annotations, checked against its profile. Pure.

A profile sets the bounds: an annotation chooses within them and never beyond.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import get_args

from capsign_injector.names import INJECTED, LABEL, MAX_SOCKETS, PREFIX
from capsign_injector.read import values
from capsign_injector.read.values import (
    CONTAINERS,
    CPU_REQUEST,
    LOG_LEVEL,
    MEMORY_LIMIT,
    OF_CONTAINER,
    OTLP_ENDPOINT,
    PROFILE,
    PROFILES,
)
from capsign_injector.refusal import annotation_refused, shown
from capsign_injector.settings import MaySet, Profile, Settings

MAX_WARNINGS = 16
"""Most warnings about one pod."""

_KNOWN = (CONTAINERS, PROFILE, PROFILES, INJECTED, *(PREFIX + name for name in get_args(MaySet)))
_MAX_LENGTH = {CONTAINERS: 16 * 64, PROFILES: 16 * 128, OTLP_ENDPOINT: 280}


@dataclass(frozen=True, slots=True)
class Choices:
    """What the pod asks for, checked and complete."""

    containers: tuple[str, ...] | None
    """In the order of the annotation; None: no annotation, so all ordinary containers."""
    profile: Profile
    """The profile of the agent, and of sockets without one of their own."""
    of_container: Mapping[str, Profile]
    cpu_request: Fraction
    """Cores."""
    cpu_asked: bool
    """Whether the pod asked for that much itself."""
    memory_limit: Fraction
    """Bytes."""
    memory_asked: bool
    """Whether the pod asked for that much itself."""
    log_level: str
    otlp_endpoint: str
    """Where the agent exports to; empty: it does not export."""
    warnings: tuple[str, ...]

    def profile_of(self, container: str) -> Profile:
        """The profile of a container's socket."""
        return self.of_container.get(container, self.profile)


def read(annotations: Mapping[str, str], namespace: str, settings: Settings) -> Choices:
    """What the annotations ask for. Raises Refusal for a bad value and for one that the profile
    does not allow.
    """
    ours = {key: value for key, value in sorted(annotations.items()) if key.startswith(PREFIX)}
    _refuse_length(ours)
    usable = _usable_profiles(namespace, settings)
    of_container = _profiles_of_containers(ours, usable)
    name = ours.get(PROFILE, "default")
    profile = _profile(PROFILE, name, usable)
    _refuse_what_profile_keeps(ours, name, profile)
    return Choices(
        containers=values.containers(ours[CONTAINERS]) if CONTAINERS in ours else None,
        profile=profile,
        of_container=of_container,
        cpu_request=values.cpu_request(ours.get(CPU_REQUEST), profile),
        cpu_asked=CPU_REQUEST in ours,
        memory_limit=values.memory_limit(ours.get(MEMORY_LIMIT), profile, settings),
        memory_asked=MEMORY_LIMIT in ours,
        log_level=values.log_level(ours.get(LOG_LEVEL), profile),
        otlp_endpoint=values.otlp_endpoint(ours.get(OTLP_ENDPOINT), settings),
        warnings=tuple(islice(_unknown(ours), MAX_WARNINGS)),
    )


def _refuse_length(ours: Mapping[str, str]) -> None:
    for key, value in ours.items():
        most = _MAX_LENGTH.get(key, 63)
        if len(value) > most and (key in _KNOWN or key.startswith(OF_CONTAINER)):
            told = f"is {len(value)} characters long; at most {most} make sense. Shorten it."
            raise annotation_refused(key, told)


def _profiles_of_containers(
    ours: Mapping[str, str], usable: Mapping[str, Profile]
) -> dict[str, Profile]:
    """Profiles by container, from their own annotations and from the list in one."""
    keys = [key for key in ours if key.startswith(OF_CONTAINER)]
    if len(keys) > MAX_SOCKETS:
        raise annotation_refused(
            keys[0],
            f"is one of {len(keys)} like it; at most {MAX_SOCKETS} containers get a socket. "
            "Remove some.",
        )
    listed = values.profiles(ours[PROFILES]) if PROFILES in ours else {}
    found = {key.removeprefix(OF_CONTAINER): _profile(key, ours[key], usable) for key in keys}
    for container, name in listed.items():
        if container in found:
            told = f"names `{container}`, which has an annotation of its own. Keep one."
            raise annotation_refused(PROFILES, told)
        found[container] = _profile(PROFILES, name, usable)
    return found


def _usable_profiles(namespace: str, settings: Settings) -> dict[str, Profile]:
    return {
        name: profile
        for name, profile in settings.profiles.items()
        if not profile.namespaces or namespace in profile.namespaces
    }


def _profile(key: str, name: str, usable: Mapping[str, Profile]) -> Profile:
    if name not in usable:
        known = ", ".join(sorted(usable)[:8]) or "none"
        told = f'is "{shown(name)}", which is no profile for this namespace. '
        raise annotation_refused(key, f"{told}Choose one of: {known}.")
    return usable[name]


def _refuse_what_profile_keeps(ours: Mapping[str, str], name: str, profile: Profile) -> None:
    """Refuse annotations that the profile does not allow. Raises Refusal."""
    for value in get_args(MaySet):
        if PREFIX + value in ours and value not in profile.may_set:
            allowed = ", ".join(profile.may_set) or "nothing"
            raise annotation_refused(
                PREFIX + value,
                f"is not the pod's to set: the profile `{name}` allows {allowed}. Remove it, or "
                "choose another profile.",
            )


def _unknown(ours: Mapping[str, str]) -> Iterator[str]:
    """A warning about each annotation that is not known, made one at a time: to guess what was
    meant takes a while, and there may be thousands.
    """
    for key in ours:
        if key in _KNOWN or key.startswith(OF_CONTAINER):
            continue
        if key == LABEL:
            meant = " It is a label, which the pod has: remove the annotation."
        else:
            names = [one.removeprefix(PREFIX) for one in _KNOWN if one != INJECTED]
            close = difflib.get_close_matches(key.removeprefix(PREFIX)[:64], names, n=1, cutoff=0.6)
            meant = (
                f" Did you mean `{PREFIX}{close[0]}`?" if close else f" Known: {', '.join(names)}."
            )
        yield f"The annotation `{shown(key)}` is not known and does nothing.{meant}"
