"""What happens to a platform happens while an application signs: none of its signatures is lost,
and none is unrecorded.
"""

from __future__ import annotations

import pytest
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, IdentityIssued
from system.cluster.auditor import Auditor
from system.cluster.fleet import CHART, REPOSITORY, SHOP, SYSTEM
from system.cluster.kit.cluster import until
from system.cluster.ledger import Ledger

PREVIOUS = REPOSITORY / "tests" / "chart" / "previous"


@pytest.fixture(scope="module")
def ledger(fleet):
    signing = Ledger(fleet)
    signing.start()
    signing.keeps_signing()
    yield signing
    signing.close()


@pytest.fixture(scope="module")
def auditor(fleet, tmp_path_factory):
    return Auditor(fleet, fleet.operators, tmp_path_factory.mktemp("auditor"))


@pytest.fixture(autouse=True)
def adds_up(ledger, auditor):
    """Around each disturbance: it signs before, it signs afterwards, both sides agree about all of
    it, and the log only grew.
    """
    ledger.follow()
    ledger.keeps_signing()
    before = auditor.verify()["leaves"]
    yield
    ledger.follow()
    ledger.keeps_signing(20)
    ledger.account()
    assert auditor.verify()["leaves"] > before


def restarts(fleet, pod: str, container: str, namespace: str) -> int:
    status = fleet.kubectl.get("pod", pod, namespace)["status"]
    of_all = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
    return next(one["restartCount"] for one in of_all if one["name"] == container)


def kill(fleet, pod: str, container: str, namespace: str) -> None:
    """SIGKILL, and wait until the kubelet has put another in its place."""
    before = restarts(fleet, pod, container, namespace)
    fleet.cluster.on_node("kill", "-KILL", str(fleet.cluster.process_of(pod, container, namespace)))
    until(
        lambda: restarts(fleet, pod, container, namespace) > before, f"the restart of {container}"
    )
    fleet.kubectl.wait("condition=Ready", f"pod/{pod}", namespace)


def test_the_agent_is_killed(fleet, ledger):
    pod = ledger.pod()
    kill(fleet, pod, "capsign-agent", SHOP)
    ledger.keeps_signing()
    assert restarts(fleet, pod, "app", SHOP) == 0


def test_the_adapter_is_killed(fleet, ledger):
    kill(fleet, "capsign-adapter-0", "adapter", SYSTEM)


FROZEN_PATIENCE_S = 180
"""The kubelet asks every ten seconds, and believes it after some; the machine may be busy."""


def freeze(fleet, pod: str, container: str, namespace: str) -> None:
    """SIGSTOP, and wait until the kubelet has found out by itself and put another in its place."""
    before = restarts(fleet, pod, container, namespace)
    fleet.cluster.on_node("kill", "-STOP", str(fleet.cluster.process_of(pod, container, namespace)))
    until(
        lambda: restarts(fleet, pod, container, namespace) > before,
        f"the restart of {container}",
        FROZEN_PATIENCE_S,
    )
    fleet.kubectl.wait("condition=Ready", f"pod/{pod}", namespace, FROZEN_PATIENCE_S)


@pytest.mark.timeout(420)
def test_a_frozen_agent_is_made_anew(fleet, ledger):
    """It had no liveness: every call was *unknown* while it was stopped, and its pod 2/2."""
    pod = ledger.pod()
    freeze(fleet, pod, "capsign-agent", SHOP)
    ledger.keeps_signing()
    assert restarts(fleet, pod, "app", SHOP) == 0


@pytest.mark.timeout(420)
def test_a_frozen_adapter_is_made_anew(fleet, ledger):
    """The kernel takes TCP connections for a stopped process: a probe that only connects found
    nothing.
    """
    freeze(fleet, "capsign-adapter-0", "adapter", SYSTEM)
    fleet.wait_ready()


@pytest.mark.timeout(420)
def test_a_frozen_injector_is_made_anew(fleet, ledger):
    pods = fleet.kubectl.get("pod", "", SYSTEM, **{"app.kubernetes.io/component": "injector"})[
        "items"
    ]
    freeze(fleet, pods[0]["metadata"]["name"], "injector", SYSTEM)
    fleet.wait_ready()


def test_the_adapter_is_rolled(fleet, ledger):
    fleet.kubectl("rollout", "restart", "statefulset/capsign-adapter", f"--namespace={SYSTEM}")
    fleet.wait_ready()


def test_the_authority_is_rotated(fleet, ledger):
    """The new one is published, and signs, while the pod runs on. The old one goes later: see
    below.
    """
    pod = ledger.pod()
    lives = restarts(fleet, pod, "capsign-agent", SHOP)
    before = max(entry.authority for entry in fleet.entries() if isinstance(entry, IdentityIssued))
    fleet.adapter_command("authority", "rotate")

    def renewed(entry) -> bool:
        return (
            isinstance(entry, IdentityIssued)
            and entry.workload == ledger.workload
            and entry.authority > before
        )

    fleet.until_entry(renewed, "a certificate of the new authority")
    assert ledger.pod() == pod
    assert restarts(fleet, pod, "capsign-agent", SHOP) == lives


def test_the_release_is_upgraded_and_rolled_back(fleet, ledger):
    before = fleet.kubectl.get("pod", "capsign-adapter-0", SYSTEM)["metadata"]["uid"]
    fleet.upgrade(adapter={"streams": 600})
    ledger.keeps_signing()
    between = fleet.kubectl.get("pod", "capsign-adapter-0", SYSTEM)["metadata"]["uid"]
    assert between != before
    fleet.rollback()
    assert fleet.kubectl.get("pod", "capsign-adapter-0", SYSTEM)["metadata"]["uid"] != between
    assert [one["status"] for one in fleet.helm.history("capsign")][-1] == "deployed"


def test_the_release_comes_from_the_chart_before(fleet, ledger):
    """The previous chart takes over keys, authority and evidence, and gives them back to this
    one.
    """
    (archive,) = PREVIOUS.glob("*.tgz")
    keys = keys_of(fleet)
    fleet.upgrade(archive)
    ledger.keeps_signing()
    fleet.upgrade(CHART)
    assert keys_of(fleet) == keys
    claim = fleet.kubectl.get("persistentvolumeclaim", "capsign-adapter-data", SYSTEM)
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi", (
        "the chart's default for a new claim is larger"
    )


def keys_of(fleet) -> list[tuple[str, bytes]]:
    """Every key that the store knows in the token, by its check value."""
    with fleet.store() as store:
        return [
            (row.label, row.check_value) for row in (*store.key_versions(), *store.authorities())
        ]


def test_the_node_is_drained(fleet, ledger):
    """One node: what is evicted waits until it may come back. The injector's budget keeps one
    replica in place.
    """
    pod = ledger.pod()
    try:
        fleet.kubectl(
            "drain", "node", "--pod-selector=app=ledger", "--delete-emptydir-data", "--timeout=180s"
        )
        fleet.kubectl(
            "drain",
            "node",
            "--pod-selector=app.kubernetes.io/component=adapter",
            "--delete-emptydir-data",
            "--timeout=180s",
        )
        words = fleet.kubectl.refused(
            "drain",
            "node",
            "--pod-selector=app.kubernetes.io/component=injector",
            "--delete-emptydir-data",
            "--timeout=8s",
        )
        assert "disruption budget" in words
    finally:
        fleet.kubectl("uncordon", "node")
    fleet.wait_ready()
    assert ledger.follow() != pod


def test_the_old_authority_is_retired_after_all_that_it_signed(fleet):
    """It was replaced at the beginning; upgrades, rollbacks and restarts since then have not made
    it forget.
    """
    retired = fleet.until_entry(
        lambda entry: isinstance(entry, Admin) and entry.act is Act.AUTHORITY_RETIRED,
        "the end of the old authority",
    )
    signed = [entry for entry in fleet.entries() if isinstance(entry, IdentityIssued)]
    old = [entry for entry in signed if f"authority/{entry.authority}" == retired.target]
    assert old
    assert retired.time_ms >= max(entry.not_after_ms for entry in old)


def test_in_the_end_both_records_are_the_same(ledger):
    ledger.stop()
    assert ledger.account() > 200
    ledger.reconcile()
    ledger.go_on()
