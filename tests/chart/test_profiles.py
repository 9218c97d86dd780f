"""Profiles that the injector would refuse when it starts are refused before they are installed."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import helm_python
import pytest
from capsign_injector import settings
from capsign_wire.settings import SettingsError
from support import chart

MIB = 1024 * 1024

PROFILES: list[dict[str, Any]] = [
    {},
    {"cpuRequest": "600m"},
    {"cpuRequest": "0.5"},
    {"cpuRequest": "0.6"},
    {"cpuRequest": "0.0005"},
    {"cpuRequestMax": "9m"},
    {"cpuRequestMax": "1"},
    {"cpuLimit": "9m"},
    {"cpuLimit": "10m"},
    {"cpuLimit": "", "cpuRequest": "500m"},
    {"cpuRequest": "0"},
    {"cpuLimit": "0m"},
    {"memoryRequest": "129Mi"},
    {"memoryRequest": "134217728"},
    {"memoryRequest": "134M"},
    {"memoryRequest": "135M"},
    {"memoryRequest": "131072Ki"},
    {"memoryLimit": "513Mi"},
    {"memoryLimit": "0.5Gi"},
    {"memoryLimit": "1Ti", "memoryLimitMax": "1T"},
    {"memoryLimit": "1T", "memoryLimitMax": "1Ti"},
    {"memoryLimitMax": "9007Ti"},
    {"memoryRequest": "16Mi", "memoryLimit": "31Mi"},
    {"memoryRequest": "16Mi", "memoryLimit": "32Mi"},
    {"memoryRequest": "16Mi", "memoryLimit": "33554431"},
    {"memoryLimitPerSocket": ""},
    {"memoryLimitPerSocket": "48Mi"},
    {"memoryLimitPerSocket": "0"},
    {"ephemeralStorage": "0Mi"},
    {"ephemeralStorage": "1k"},
]


def refused_by_the_chart(values: dict[str, Any]) -> str | None:
    try:
        chart.manifests(values)
    except helm_python.HelmError as error:
        return str(error)
    return None


def refused_by_the_injector(profile: dict[str, Any], journal: int) -> bool:
    snake = {
        re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): value
        for key, value in profile.items()
    }
    try:
        settings.parse(
            repr(
                {"journal_max_bytes": journal, "profiles": {"default": {}, "given": snake}}
            ).encode(),
            "x",
        )
    except SettingsError:
        return True
    return False


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_the_chart_refuses_what_the_injector_refuses(profile: dict[str, Any]) -> None:
    """A replica that was started again after the upgrade read the new settings and ended, and so
    did the next: with the last one no labelled pod could be made.
    """
    refusal = refused_by_the_chart({"agent": {"profiles": {"given": profile}}})
    assert (refusal is not None) is refused_by_the_injector(profile, 8 * MIB), refusal
    assert refusal is None or "agent.profiles.given." in refusal


def test_a_journal_that_does_not_fit_into_the_agents_memory() -> None:
    most = 56 * MIB
    assert refused_by_the_chart({"agent": {"journalMaxBytes": most}}) is None
    assert not refused_by_the_injector({}, most)
    refusal = refused_by_the_chart({"agent": {"journalMaxBytes": most + 1}})
    assert refusal is not None
    assert "agent.profiles.default.memoryLimit must be at least 128Mi" in refusal
    assert refused_by_the_injector({}, most + 1)


def test_the_adapter_is_told_which_grants_profiles_name() -> None:
    """It holds them against the policy in force, which changes without the chart."""
    profiles = {"a": {"grants": ["orders-jws", "audit"]}, "b": {"grants": ["audit"]}, "c": {}}
    rendered = chart.objects({"agent": {"profiles": profiles}})
    toml = chart.one(rendered, "ConfigMap", "capsign-adapter")["data"]["adapter.toml"]
    assert tomllib.loads(toml)["chart"]["grants"] == ["audit", "orders-jws"]
    (default,) = [
        one
        for one in chart.objects({})
        if one["metadata"]["name"] == "capsign-adapter" and one["kind"] == "ConfigMap"
    ]
    assert tomllib.loads(default["data"]["adapter.toml"])["chart"]["grants"] == []
