"""Reads the value of each annotation, and checks it against the profile. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import get_args

from capsign_injector import quantity
from capsign_injector.names import MAX_SOCKETS, PREFIX
from capsign_injector.refusal import annotation_refused, shown
from capsign_injector.server_settings import LogLevel
from capsign_injector.settings import ENDPOINT, Profile, Settings

CONTAINERS, PROFILE = f"{PREFIX}containers", f"{PREFIX}profile"
OF_CONTAINER = f"{PROFILE}."
"""Prefix of an annotation whose name ends in a container's: another profile for its socket."""
PROFILES = f"{PREFIX}profiles"
"""The same as a list, `container=profile,...`, for containers whose names are too long for an
annotation's name (above 55 characters).
"""
CPU_REQUEST, MEMORY_LIMIT = f"{PREFIX}cpu-request", f"{PREFIX}memory-limit"
LOG_LEVEL, OTLP_ENDPOINT = f"{PREFIX}log-level", f"{PREFIX}otlp-endpoint"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def containers(value: str) -> tuple[str, ...]:
    """Names of containers, separated by commas. Raises Refusal, as all of these functions do."""
    names = tuple(part.strip(" ") for part in value.split(","))
    for name in names:
        if not _NAME.fullmatch(name):
            raise annotation_refused(
                CONTAINERS,
                f'holds "{shown(name)}", which is no container\'s name. Write names with '
                f"commas between.",
            )
        if names.count(name) > 1:
            raise annotation_refused(CONTAINERS, f"names `{name}` twice. Name it once.")
    return names


def profiles(value: str) -> dict[str, str]:
    """Names of profiles by container, from `container=profile,...`."""
    found: dict[str, str] = {}
    for part in value.split(","):
        name, equals, profile = (one.strip(" ") for one in part.partition("="))
        if not equals or not profile or not _NAME.fullmatch(name):
            raise annotation_refused(
                PROFILES, f'holds "{shown(part)}". Write container=profile, with commas between.'
            )
        if name in found:
            raise annotation_refused(PROFILES, f"names `{name}` twice. Name it once.")
        found[name] = profile
    if len(found) > MAX_SOCKETS:
        raise annotation_refused(
            PROFILES,
            f"names {len(found)} containers; at most {MAX_SOCKETS} get a socket. Remove some.",
        )
    return found


def cpu_request(value: str | None, profile: Profile) -> Fraction:
    """Cores: the profile's value, or what the pod asks for within its bounds."""
    if value is None:
        return quantity.parse(profile.cpu_request)
    most = quantity.parse(profile.cpu_request_max)
    if profile.cpu_limit:
        most = min(most, quantity.parse(profile.cpu_limit))
    return _within(CPU_REQUEST, value, Fraction(1, 1000), most, quantity.cpu)


def memory_limit(value: str | None, profile: Profile, settings: Settings) -> Fraction:
    """Bytes: the profile's value, or what the pod asks for within its bounds. The journal is in
    that memory too.
    """
    if value is None:
        return quantity.parse(profile.memory_limit)
    least = max(quantity.parse(profile.memory_request), Fraction(2 * settings.state_bytes))
    return _within(
        MEMORY_LIMIT,
        value,
        least,
        quantity.parse(profile.memory_limit_max),
        quantity.memory,
    )


def _within(
    key: str, value: str, least: Fraction, most: Fraction, text: Callable[[Fraction], str]
) -> Fraction:
    bounds = f"between {text(least)} and {text(most)}"
    try:
        amount = quantity.parse(value)
    except quantity.NotAQuantityError:
        raise annotation_refused(
            key, f'is "{shown(value)}"; it must be a quantity {bounds}.'
        ) from None
    if not least <= amount <= most:
        raise annotation_refused(key, f'is "{shown(value)}"; the profile allows {bounds}.')
    return amount


def log_level(value: str | None, profile: Profile) -> str:
    """One of `LogLevel`."""
    if value is not None and value not in get_args(LogLevel):
        raise annotation_refused(
            LOG_LEVEL, f'is "{shown(value)}"; it must be debug, info, warning or error.'
        )
    return value or profile.log_level


def otlp_endpoint(value: str | None, settings: Settings) -> str:
    """Where the agent exports to; empty: it does not export."""
    if value and not ENDPOINT.fullmatch(value):
        sentence = (
            f'is "{shown(value)}"; it must be http:// or https:// and host:port, such as '
            f"http://collector:4317, or empty."
        )
        raise annotation_refused(OTLP_ENDPOINT, sentence)
    return settings.telemetry.otlp_endpoint if value is None else value
