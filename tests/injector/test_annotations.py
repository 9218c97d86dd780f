"""Annotations: an attacker's favourite place, because whoever may make a pod may write them."""

from __future__ import annotations

import pytest
from capsign_injector.read import annotations
from capsign_injector.read.annotations import read
from capsign_injector.refusal import Reason, Refusal
from capsign_injector.settings import Settings, parse
from hypothesis import given
from hypothesis import strategies as st
from support.injector_settings import SETTINGS


def refusal(given: dict[str, str], settings: Settings, namespace: str = "shop") -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(given, namespace, settings)
    return caught.value


def test_nothing_asked_is_the_default_profile(settings):
    wanted = read({"other.dev/thing": "x"}, "shop", settings)
    assert (wanted.containers, wanted.log_level, wanted.warnings) == (None, "info", ())
    assert wanted.profile == settings.profiles["default"]


def test_each_may_be_set_within_its_bounds(settings):
    wanted = read(
        {
            "capsign.dev/containers": "b, a",
            "capsign.dev/profile": "payments",
            "capsign.dev/profile.a": "receipts",
            "capsign.dev/cpu-request": "0.25",
            "capsign.dev/memory-limit": "512Mi",
            "capsign.dev/log-level": "error",
            "capsign.dev/injected": "1",
        },
        "shop",
        settings,
    )
    assert wanted.containers == ("b", "a")
    assert wanted.profile_of("a").grants == ("payments-receipt",)
    assert wanted.profile_of("b").grants == ("payments-jwt", "payments-receipt")
    assert (float(wanted.cpu_request), int(wanted.memory_limit), wanted.log_level) == (
        0.25,
        512 * 2**20,
        "error",
    )
    assert wanted.warnings == ()


def test_a_container_whose_name_no_annotation_can_hold_may_have_a_profile_too(settings):
    """The name of an annotation has at most 63 characters after the slash, `profile.` takes eight,
    and a container's has 63.
    """
    long = "a" * 63
    wanted = read(
        {
            "capsign.dev/profiles": f"{long}=payments, b = receipts",
            "capsign.dev/profile.c": "payments",
        },
        "shop",
        settings,
    )
    assert [len(wanted.profile_of(name).grants) for name in (long, "b", "c", "d")] == [2, 1, 2, 0]
    twice = refusal(
        {"capsign.dev/profiles": "c=payments", "capsign.dev/profile.c": "payments"}, settings
    )
    assert "has an annotation of its own" in twice.sentence


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("containers", "", 'holds ""'),
        ("containers", "a,,b", 'holds ""'),
        ("containers", "a,a", "twice"),
        ("containers", "A", 'holds "A"'),
        ("containers", "a\nb", 'holds "a?b"'),
        ("containers", "a,$(kill)", "no container's name"),
        ("containers", "x" * 2000, "2000 characters"),
        ("profile", "no-such", "Choose one of: default, payments, receipts"),
        ("profile", "treasury", "Choose one of: default, payments, receipts"),
        ("profile", "", "Choose one of"),
        ("profile", "\x1b[31mred", 'is "?[31mred"'),
        ("profile.app", "treasury", "Choose one of"),
        ("profile.app", "x" * 100, "100 characters"),
        ("profiles", "", 'holds ""'),
        ("profiles", "app", "Write container=profile"),
        ("profiles", "app=", "Write container=profile"),
        ("profiles", "=payments", "Write container=profile"),
        ("profiles", "app=payments,app=default", "twice"),
        ("profiles", "app=treasury", "Choose one of"),
        ("profiles", ",".join(f"a{number}=default" for number in range(17)), "at most 16"),
        ("profiles", "x" * 3000, "3000 characters"),
        ("cpu-request", "501m", "between 1m and 500m"),
        ("cpu-request", "64", "between 1m and 500m"),
        ("cpu-request", "0", "between 1m and 500m"),
        ("cpu-request", "-1", "must be a quantity"),
        ("cpu-request", "1e9", "between 1m and 500m"),
        ("cpu-request", "NaN", "must be a quantity"),
        ("cpu-request", "٣", "must be a quantity"),
        ("memory-limit", "8Gi", "between 64Mi and 512Mi"),
        ("memory-limit", "1Mi", "between 64Mi and 512Mi"),
        ("memory-limit", "512Mi,", "must be a quantity"),
        ("log-level", "trace", "debug, info, warning or error"),
        ("log-level", "info\n[telemetry]", 'is "info?[telemetry]"'),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_the_fix(key, value, says, settings):
    caught = refusal({f"capsign.dev/{key}": value}, settings)
    assert caught.reason is Reason.ANNOTATION
    assert caught.field == f"metadata.annotations[capsign.dev/{key}]"
    assert f"`capsign.dev/{key}`" in caught.sentence
    assert says in caught.sentence
    assert caught.sentence.isprintable()


def test_no_more_profiles_than_sockets_are_looked_up(settings):
    """Each costs a walk through all profiles and their namespaces."""
    read({f"capsign.dev/profile.a{number}": "default" for number in range(16)}, "shop", settings)
    caught = refusal(
        {f"capsign.dev/profile.a{number}": "default" for number in range(17)}, settings
    )
    assert "is one of 17 like it; at most 16 containers get a socket" in caught.sentence


@pytest.mark.parametrize("key", ["log-level", "cpu-request", "memory-limit"])
def test_a_profile_that_lets_a_pod_set_nothing(key, settings):
    caught = refusal({"capsign.dev/profile": "receipts", f"capsign.dev/{key}": "1m"}, settings)
    assert "allows nothing" in caught.sentence


def test_the_profile_of_another_namespace_is_as_good_as_none(settings):
    assert (
        read({"capsign.dev/profile": "treasury"}, "treasury", settings).profile
        == settings.profiles["treasury"]
    )
    foreign, absent = (
        refusal({"capsign.dev/profile": name}, settings).sentence for name in ("treasury", "vault")
    )
    assert foreign.replace("treasury", "vault") == absent


def test_a_cpu_limit_bounds_the_request_too():
    limited = parse(b"profiles: {default: {cpu_limit: 100m}}", "x")
    assert "between 1m and 100m" in refusal({"capsign.dev/cpu-request": "200m"}, limited).sentence


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("container", "Did you mean `capsign.dev/containers`?"),
        ("loglevel", "Did you mean `capsign.dev/log-level`?"),
        ("inject", "It is a label"),
        ("zzz", "Known: containers, profile"),
        ("image", "does nothing"),
    ],
)
def test_an_unknown_one_is_a_warning(key, meant, settings):
    (warning,) = read({f"capsign.dev/{key}": "x" * 10_000}, "shop", settings).warnings
    assert meant in warning
    assert "xxx" not in warning


def test_ten_thousand_unknown_ones_are_a_few_warnings(settings):
    wanted = read({f"capsign.dev/x{number}\x00": "y" for number in range(10_000)}, "shop", settings)
    assert len(wanted.warnings) == annotations.MAX_WARNINGS
    assert all(one.isprintable() and len(one) < 300 for one in wanted.warnings)


@given(
    st.dictionaries(
        st.sampled_from(
            ["containers", "profile", "profile.a", "cpu-request", "memory-limit", "log-level"]
        ),
        st.text(max_size=80),
    )
)
def test_no_text_widens_a_profile_or_breaks_anything(texts):
    refused = None
    try:
        wanted = read(
            {f"capsign.dev/{key}": value for key, value in texts.items()}, "elsewhere", SETTINGS
        )
    except Refusal as caught:
        refused = caught.sentence
    if refused is not None:
        assert refused.isprintable()
        assert len(refused) < 400
        return
    assert wanted.profile in (SETTINGS.profiles["default"], SETTINGS.profiles["receipts"])
    assert wanted.cpu_request <= 0.5
    assert wanted.memory_limit <= 512 * 2**20
