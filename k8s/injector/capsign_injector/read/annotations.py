"""What a pod asks for by its annotations, held against what its profile allows. Pure.

A profile is a ceiling: an annotation chooses within it and never above it, whatever it says.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import get_args

from capsign_injector import quantity
from capsign_injector.build.sidecar import MAX_SOCKETS
from capsign_injector.refusal import Reason, Refusal, shown
from capsign_injector.server_settings import LogLevel
from capsign_injector.settings import ENDPOINT, MaySet, Profile, Settings

PREFIX = "capsign.dev/"
LABEL = f"{PREFIX}inject"
"""Label that asks for injection, with the value "true"."""
INJECTED = f"{PREFIX}injected"
"""Annotation that the injector sets: the version of its format."""
CONTAINERS, PROFILE = f"{PREFIX}containers", f"{PREFIX}profile"
OF_CONTAINER = f"{PROFILE}."
"""Before a container's name: another profile for its socket."""
PROFILES = f"{PREFIX}profiles"
"""The same for names of more than 55 characters, which no annotation's name can hold:
`container=profile,...`.
"""
MISPLACED = (
    f"The annotation `{LABEL}` does nothing, and the pod gets no agent. It is a label: move "
    f"it to `metadata.labels`."
)

MAX_WARNINGS = 16
"""Most warnings about one pod."""

_KNOWN = (CONTAINERS, PROFILE, PROFILES, INJECTED, *(PREFIX + name for name in get_args(MaySet)))
OTLP_ENDPOINT = f"{PREFIX}otlp-endpoint"
_MAX_LENGTH = {CONTAINERS: 16 * 64, PROFILES: 16 * 128, OTLP_ENDPOINT: 280}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the pod asked for, allowed and complete."""

    containers: tuple[str, ...] | None
    """In the order of the annotation; None: it has none, so all ordinary containers."""
    profile: Profile
    """Of the agent, and of sockets without a profile of their own."""
    of_container: Mapping[str, Profile]
    cpu_request: Fraction
    cpu_asked: bool
    """Whether the pod asked for that much itself."""
    memory_limit: Fraction
    log_level: str
    otlp_endpoint: str
    """Where the agent exports to; empty: nowhere."""
    warnings: tuple[str, ...]

    def profile_of(self, container: str) -> Profile:
        return self.of_container.get(container, self.profile)


def read(annotations: Mapping[str, str], namespace: str, settings: Settings) -> Wanted:
    """What the annotations ask for. Raises Refusal for a bad value and for one that the profile
    does not allow.
    """
    ours = {key: value for key, value in sorted(annotations.items()) if key.startswith(PREFIX)}
    for key, value in ours.items():
        if len(value) > _MAX_LENGTH.get(key, 63) and (
            key in _KNOWN or key.startswith(OF_CONTAINER)
        ):
            raise _refused(
                key,
                f"is {len(value)} characters long; at most {_MAX_LENGTH.get(key, 63)} "
                f"make sense. Shorten it.",
            )
    profiled = [key for key in ours if key.startswith(OF_CONTAINER)]
    if len(profiled) > MAX_SOCKETS:
        raise _refused(
            profiled[0],
            f"is one of {len(profiled)} like it; at most {MAX_SOCKETS} containers get a "
            f"socket. Remove some.",
        )
    listed = _profiles(ours[PROFILES]) if PROFILES in ours else {}
    name = ours.get(PROFILE, "default")
    profile = _profile(PROFILE, name, namespace, settings)
    of_container = {
        key.removeprefix(OF_CONTAINER): _profile(key, ours[key], namespace, settings)
        for key in profiled
    }
    for container, wanted in listed.items():
        if container in of_container:
            raise _refused(
                PROFILES, f"names `{container}`, which has an annotation of its own. Keep one."
            )
        of_container[container] = _profile(PROFILES, wanted, namespace, settings)
    for may_set in get_args(MaySet):
        if PREFIX + may_set in ours and may_set not in profile.may_set:
            allowed = ", ".join(profile.may_set) or "nothing"
            sentence = (
                f"is not the pod's to set: the profile `{name}` allows {allowed}. Remove it, "
                f"or choose another profile."
            )
            raise _refused(PREFIX + may_set, sentence)
    return Wanted(
        containers=_containers(ours[CONTAINERS]) if CONTAINERS in ours else None,
        profile=profile,
        of_container=of_container,
        cpu_request=_cpu_request(ours.get(f"{PREFIX}cpu-request"), profile),
        cpu_asked=f"{PREFIX}cpu-request" in ours,
        memory_limit=_memory_limit(ours.get(f"{PREFIX}memory-limit"), profile, settings),
        log_level=_log_level(ours.get(f"{PREFIX}log-level"), profile),
        otlp_endpoint=_otlp_endpoint(ours.get(OTLP_ENDPOINT), settings),
        warnings=tuple(islice(_unknown(ours), MAX_WARNINGS)),
    )


def _profile(key: str, name: str, namespace: str, settings: Settings) -> Profile:
    usable = [
        one
        for one, each in settings.profiles.items()
        if not each.namespaces or namespace in each.namespaces
    ]
    if name not in usable:
        known = ", ".join(sorted(usable)[:8]) or "none"
        raise _refused(
            key,
            f'is "{shown(name)}", which is no profile for this namespace. Choose one of: {known}.',
        )
    return settings.profiles[name]


def _containers(value: str) -> tuple[str, ...]:
    names = tuple(part.strip(" ") for part in value.split(","))
    for name in names:
        if not _NAME.fullmatch(name):
            raise _refused(
                CONTAINERS,
                f'holds "{shown(name)}", which is no container\'s name. Write names with '
                f"commas between.",
            )
        if names.count(name) > 1:
            raise _refused(CONTAINERS, f"names `{name}` twice. Name it once.")
    return names


def _profiles(value: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in value.split(","):
        name, equals, profile = (one.strip(" ") for one in part.partition("="))
        if not equals or not profile or not _NAME.fullmatch(name):
            raise _refused(
                PROFILES, f'holds "{shown(part)}". Write container=profile, with commas between.'
            )
        if name in found:
            raise _refused(PROFILES, f"names `{name}` twice. Name it once.")
        found[name] = profile
    if len(found) > MAX_SOCKETS:
        raise _refused(
            PROFILES,
            f"names {len(found)} containers; at most {MAX_SOCKETS} get a socket. Remove some.",
        )
    return found


def _cpu_request(value: str | None, profile: Profile) -> Fraction:
    if value is None:
        return quantity.parse(profile.cpu_request)
    most = quantity.parse(profile.cpu_request_max)
    if profile.cpu_limit:
        most = min(most, quantity.parse(profile.cpu_limit))
    return _within(f"{PREFIX}cpu-request", value, Fraction(1, 1000), most, quantity.cpu)


def _memory_limit(value: str | None, profile: Profile, settings: Settings) -> Fraction:
    if value is None:
        return quantity.parse(profile.memory_limit)
    least = max(quantity.parse(profile.memory_request), Fraction(2 * settings.state_bytes))
    return _within(
        f"{PREFIX}memory-limit",
        value,
        least,
        quantity.parse(profile.memory_limit_max),
        quantity.memory,
    )


def _within(key: str, value: str, least: Fraction, most: Fraction, text: object) -> Fraction:
    assert callable(text)
    bounds = f"between {text(least)} and {text(most)}"
    try:
        amount = quantity.parse(value)
    except quantity.NotAQuantityError:
        raise _refused(key, f'is "{shown(value)}"; it must be a quantity {bounds}.') from None
    if not least <= amount <= most:
        raise _refused(key, f'is "{shown(value)}"; the profile allows {bounds}.')
    return amount


def _log_level(value: str | None, profile: Profile) -> str:
    if value is not None and value not in get_args(LogLevel):
        raise _refused(
            f"{PREFIX}log-level", f'is "{shown(value)}"; it must be debug, info, warning or error.'
        )
    return value or profile.log_level


def _otlp_endpoint(value: str | None, settings: Settings) -> str:
    if value and not ENDPOINT.fullmatch(value):
        sentence = (
            f'is "{shown(value)}"; it must be http:// or https:// and host:port, such as '
            f"http://collector:4317, or empty."
        )
        raise _refused(OTLP_ENDPOINT, sentence)
    return settings.telemetry.otlp_endpoint if value is None else value


def _unknown(ours: Mapping[str, str]) -> Iterator[str]:
    """One warning at a time: what is meant takes a while to guess, and there may be thousands."""
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


def _refused(key: str, sentence: str) -> Refusal:
    return Refusal(
        Reason.ANNOTATION,
        f"metadata.annotations[{shown(key)}]",
        f"The annotation `{shown(key)}` {sentence}",
    )
