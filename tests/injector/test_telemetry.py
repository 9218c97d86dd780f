"""Injected agents export what they count and trace, where the platform team or an allowed
annotation says to.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from capsign_injector.inject import inject
from capsign_injector.refusal import Refusal
from capsign_injector.settings import EnvVar, Telemetry, parse
from capsign_wire import otel
from capsign_wire.settings import SettingsError

ENDPOINT = "http://collector.monitoring:4317"
ANNOTATION = "capsign.dev/otlp-endpoint"


def env(settings, bundle, **annotations: str) -> dict[str, dict[str, Any]]:
    metadata = {"labels": {"capsign.dev/inject": "true"}, "annotations": annotations}
    pod = {"metadata": metadata, "spec": {"containers": [{"name": "app", "image": "a"}]}}
    first = inject(pod, "shop", settings, bundle)
    again = inject(first.pod, "shop", settings, bundle)
    assert again.pod == first.pod
    variables = first.pod["spec"]["initContainers"][0]["env"]
    assert len({one["name"] for one in variables}) == len(variables)
    return {one["name"]: one for one in variables}


def test_nothing_is_exported_unless_somebody_says_so(settings, bundle):
    assert list(env(settings, bundle)) == ["CAPSIGN_AGENT_CONFIG"]


def test_an_endpoint_for_all_agents(settings, bundle):
    """There was no way: an injected agent has no environment but what the injector writes."""
    told = msgspec.structs.replace(
        settings, telemetry=Telemetry(otlp_endpoint=ENDPOINT, traces_sample_ratio="0.5")
    )
    found = env(told, bundle)
    values = {name: one["value"] for name, one in found.items() if "value" in one}
    assert otel.exporter_of(values, "METRICS") == otel.exporter_of(values, "TRACES") == "otlp"
    assert values["OTEL_EXPORTER_OTLP_ENDPOINT"] == ENDPOINT
    assert values["OTEL_METRIC_EXPORT_INTERVAL"] == "60000"
    assert (values["OTEL_TRACES_SAMPLER"], values["OTEL_TRACES_SAMPLER_ARG"]) == (
        "parentbased_traceidratio",
        "0.5",
    )
    # The kubelet fills in what comes before, so the pod's fields do.
    names = list(found)
    used = re.findall(r"\$\((\w+)\)", values["OTEL_RESOURCE_ATTRIBUTES"])
    assert len(used) == 4
    assert all(names.index(one) < names.index("OTEL_RESOURCE_ATTRIBUTES") for one in used)
    assert found["K8S_POD_UID"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.uid"


def test_what_the_platform_team_adds_goes_first(settings, bundle):
    own = (EnvVar(name="OTEL_TRACES_SAMPLER", value="always_off"),)
    told = msgspec.structs.replace(
        settings, telemetry=Telemetry(otlp_endpoint=ENDPOINT), extra_env=own
    )
    assert env(told, bundle)["OTEL_TRACES_SAMPLER"]["value"] == "always_off"


def test_a_pod_names_its_own_where_its_profile_allows_it(settings, bundle):
    with pytest.raises(Refusal, match="is not the pod's to set"):
        env(settings, bundle, **{ANNOTATION: ENDPOINT})
    profile = msgspec.structs.replace(settings.profiles["default"], may_set=("otlp-endpoint",))
    open_ = msgspec.structs.replace(settings, profiles={**settings.profiles, "default": profile})
    assert (
        env(open_, bundle, **{ANNOTATION: ENDPOINT})["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"]
        == ENDPOINT
    )
    everywhere = msgspec.structs.replace(
        open_, telemetry=Telemetry(otlp_endpoint="http://other:4317")
    )
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in env(everywhere, bundle, **{ANNOTATION: ""})


@pytest.mark.parametrize(
    "bad",
    [
        "collector:4317",
        "http://a b:1",
        "ftp://x:1",
        "http://$(SECRET):1",
        "http://x:1/path?q",
        "http://" + "x" * 270,
    ],
)
def test_what_is_no_endpoint_is_refused(settings, bundle, bad):
    profile = msgspec.structs.replace(settings.profiles["default"], may_set=("otlp-endpoint",))
    open_ = msgspec.structs.replace(settings, profiles={**settings.profiles, "default": profile})
    with pytest.raises(Refusal):
        env(open_, bundle, **{ANNOTATION: bad})
    with pytest.raises(SettingsError, match="otlp_endpoint"):
        parse(f'telemetry: {{otlp_endpoint: "{bad}"}}'.encode(), "x")
