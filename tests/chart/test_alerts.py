"""Each alert fires when it should and else does not, by Prometheus's own engine.

Series are in promtool's notation, a value a minute: `0x3 1+2x4` is 0, 0, 0, 0, 1, 3, 5, 7, 9, and
`_` is none.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import NamedTuple

import pytest
import yaml
from support.chart import REPOSITORY, manifests

BEGINS = 1_800_000_000
"""When the first minute is, seconds since 1970; `main.go` says so too."""

DAY_S = 86_400


def rules() -> dict[str, dict[str, str]]:
    text = manifests({"monitoring": {"rules": {"enabled": True}}})
    (document,) = [
        yaml.safe_load(one) for path, one in text.items() if path.endswith("monitoring/rules.yaml")
    ]
    return {one["alert"]: one for group in document["spec"]["groups"] for one in group["rules"]}


RULES = rules()


def bound(alert: str) -> float:
    """The number with which the rule compares."""
    found = re.search(r"[<>] ([0-9.e+]+)$", RULES[alert]["expr"])
    assert found is not None
    return float(found[1])


class Scene(NamedTuple):
    """What is seen for so many minutes, and whether the alert fires then."""

    alert: str
    what: str
    fires: bool
    minutes: int
    series: tuple[str, ...]


def event(alert: str, series: str) -> list[Scene]:
    """An alert of something that should never happen once."""
    return [
        Scene(alert, "counted in a process that ran", True, 14, (f"{series} 0x10 1x40",)),
        Scene(alert, "counted before the first export", True, 14, (f"{series} _x12 1x40",)),
        Scene(alert, "long ago", False, 40, (f"{series} 0x10 1x40",)),
        Scene(alert, "never", False, 40, (f"{series} 0x50",)),
    ]


def lasting(alert: str, minutes: int, bad: str, good: str, *others: str) -> list[Scene]:
    """An alert of what goes on for longer than so many minutes: `bad` and `good` have a series in
    which `@` stands for how long.
    """
    seen = minutes + 8
    return [
        Scene(alert, "long enough", True, seen, (bad.replace("@", f"x{seen}"), *others)),
        Scene(alert, "not long enough", False, minutes - 1, (bad.replace("@", "x90"), *others)),
        Scene(alert, "well", False, seen, (good.replace("@", f"x{seen}"), *others)),
    ]


def counted(alert: str, minutes: int, series: str) -> list[Scene]:
    return lasting(alert, minutes, f"{series} 0+1@", f"{series} 7@")


def below(alert: str, minutes: int, series: str, edge: float) -> list[Scene]:
    return lasting(alert, minutes, f"{series} {edge - 1:.0f}@", f"{series} {edge + 1:.0f}@")


SCENES = [
    *event("CapsignInvariantViolated", 'capsign_invariant_violations_total{invariant="I4"}'),
    *event("CapsignHandleStolen", 'capsign_refusals_total{reason="HANDLE_STOLEN"}'),
    *event("CapsignTokenMisplaced", 'capsign_identities_total{reason="SERVICE_TOKEN_MISPLACED"}'),
    *event("CapsignKeyMissing", 'capsign_token_errors_total{fault="key_missing"}'),
    Scene(
        "CapsignHandleStolen",
        "another refusal",
        False,
        14,
        ('capsign_refusals_total{reason="RATE_LIMITED"} 0x10 1x40',),
    ),
    Scene(
        "CapsignTokenErrors",
        "one",
        True,
        14,
        ('capsign_token_errors_total{fault="unavailable"} 0x10 1x9',),
    ),
    Scene(
        "CapsignTokenErrors",
        "long ago",
        False,
        40,
        ('capsign_token_errors_total{fault="unavailable"} 0x10 1x40',),
    ),
    *lasting(
        "CapsignUnavailable",
        10,
        'capsign_calls_total{outcome="unavailable"} 0+2@',
        'capsign_calls_total{outcome="unavailable"} 0+1@',
        'capsign_calls_total{outcome="done"} 0+100x90',
    ),
    *lasting(
        "CapsignAdapterUnreachable",
        5,
        "capsign_upstream_streams 0@",
        "capsign_upstream_streams 1@",
    ),
    *counted("CapsignUnknowns", 15, 'capsign_unknowns_total{reason="ANSWER_LOST"}'),
    *counted("CapsignTimeouts", 15, 'capsign_timeouts_total{hop="upstream"}'),
    *lasting(
        "CapsignSplitView",
        1,
        "capsign_agent_split_view 1@",
        "capsign_agent_split_view 0@",
    ),
    *lasting(
        "CapsignNotWitnessed",
        5,
        "capsign_witness_behind_seconds 121@",
        "capsign_witness_behind_seconds 120@",
    ),
    *lasting(
        "CapsignExportBehind",
        5,
        "capsign_export_age_seconds 601@",
        "capsign_export_age_seconds 600@",
    ),
    *lasting(
        "CapsignJournalFilling",
        5,
        f"capsign_journal_bytes {bound('CapsignJournalFilling') + 1:.0f}@",
        f"capsign_journal_bytes {bound('CapsignJournalFilling'):.0f}@",
    ),
    *lasting(
        "CapsignRoomDrained",
        10,
        "capsign_room_used_ratio 0.95@",
        "capsign_room_used_ratio 0.9@",
    ),
    Scene(
        "CapsignTaskOverdue",
        "for longer than it may",
        True,
        2,
        ('capsign_ticker_overdue_seconds{ticker="retention"} 601x9',),
    ),
    Scene(
        "CapsignTaskOverdue",
        "a moment late",
        False,
        9,
        ('capsign_ticker_overdue_seconds{ticker="retention"} 600x9',),
    ),
    *counted("CapsignColdFilesHang", 5, 'capsign_log_cold_reads_total{result="late"}')[::2],
    *counted("CapsignLogRolledBack", 1, 'capsign_calls_total{reason="LOG_ROLLED_BACK"}'),
    *counted("CapsignOverloaded", 10, 'capsign_calls_total{reason="OVERLOADED"}'),
    *below(
        "CapsignCertificateEnding",
        5,
        "capsign_certificate_remaining_seconds",
        bound("CapsignCertificateEnding"),
    ),
    *below(
        "CapsignAuthorityEnding",
        15,
        "capsign_authority_remaining_seconds",
        bound("CapsignAuthorityEnding"),
    ),
    *lasting(
        "CapsignGlassBroken",
        1,
        "capsign_approvals_glass_broken 1@",
        "capsign_approvals_glass_broken 0@",
    ),
    *event("CapsignRolledBack", 'capsign_rollout_ends_total{end="rolled_back"}'),
    *lasting(
        "CapsignRolloutWaits",
        5,
        'capsign_rollouts{pace="inconclusive"} 1@',
        'capsign_rollouts{pace="held"} 1@',
    ),
    *lasting(
        "CapsignUnknownObject",
        1,
        'capsign_drift{kind="unknown-object"} 1@',
        'capsign_drift{kind="software"} 1@',
    ),
    *lasting(
        "CapsignIncident",
        1,
        'capsign_incidents{kind="signed-not-reported"} 1@',
        'capsign_incidents{kind="silence"} 1@',
    ),
    *lasting(
        "CapsignAgentSilent",
        60,
        'capsign_incidents{kind="late"} 1@',
        'capsign_incidents{kind="late"} 0@',
    ),
    Scene(
        "CapsignReconcileStopped",
        "the replica that did it has stopped",
        True,
        40,
        ('capsign_reconcile_lag{pod="a"} 0x10 1+7x40', 'capsign_reconcile_lag{pod="b"} 3+9x50'),
    ),
    Scene(
        "CapsignReconcileStopped",
        "one replica is at the end of the log",
        False,
        40,
        ('capsign_reconcile_lag{pod="a"} 0x50', 'capsign_reconcile_lag{pod="b"} 50+0x50'),
    ),
    Scene(
        "CapsignReconcileStopped",
        "it reads a long log",
        False,
        40,
        ('capsign_reconcile_lag{pod="a"} 90000-100x50',),
    ),
    *lasting(
        "CapsignDrift",
        15,
        'capsign_drift{kind="configuration"} 1@',
        'capsign_drift{kind="configuration"} 0@',
    ),
    *lasting(
        "CapsignPolicyFileDiffers",
        15,
        "capsign_policy_file_differs 1@",
        "capsign_policy_file_differs 0@",
    ),
    *below("CapsignStoreFilling", 60, "capsign_store_time_to_full_seconds", 3 * DAY_S),
    *lasting(
        "CapsignInjectorNotReady",
        10,
        "capsign_injector_ready 0@",
        "capsign_injector_ready 1@",
    ),
    *lasting(
        "CapsignInjectorCertificateEnding",
        60,
        f"capsign_injector_certificate_end_timestamp_seconds {BEGINS + 3 * DAY_S - 60}@",
        f"capsign_injector_certificate_end_timestamp_seconds {BEGINS + 4 * DAY_S}@",
    ),
]


@pytest.fixture(scope="module")
def fired(tmp_path_factory: pytest.TempPathFactory) -> dict[Scene, bool]:
    """All scenes at once, after a build of some seconds."""
    program = REPOSITORY / "tests/support/alert_rules"
    fetch = ["go", "mod", "download", "github.com/prometheus/prometheus"]
    fetched = subprocess.run(
        fetch, cwd=program, capture_output=True, text=True, timeout=240, check=False
    )
    if fetched.returncode:
        pytest.skip(f"{fetch[-1]} cannot be fetched: {fetched.stderr.strip()[:200]}")
    binary = tmp_path_factory.mktemp("alerts") / "alert_rules"
    subprocess.run(
        ["go", "build", "-mod=readonly", "-o", binary, "."], cwd=program, check=True, timeout=280
    )
    asked = {
        "Rules": list(RULES.values()),
        "Cases": [
            {"Alert": scene.alert, "Series": scene.series, "Minutes": scene.minutes}
            for scene in SCENES
        ],
    }
    told = subprocess.run(
        [binary], input=json.dumps(asked), capture_output=True, text=True, timeout=60, check=True
    )
    return dict(zip(SCENES, json.loads(told.stdout), strict=True))


@pytest.mark.parametrize("scene", SCENES, ids=[f"{one.alert}: {one.what}" for one in SCENES])
def test_an_alert_fires_when_it_should_and_else_does_not(
    scene: Scene, fired: dict[Scene, bool]
) -> None:
    assert fired[scene] is scene.fires, RULES[scene.alert]["expr"]


def test_every_alert_has_a_scene_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    for outcome in (True, False):
        assert {scene.alert for scene in SCENES if scene.fires is outcome} == set(RULES)
