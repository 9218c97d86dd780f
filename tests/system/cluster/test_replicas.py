"""Several adapters on PostgreSQL: one may go at any time, and the application does not lose a
signature by it.
"""

from __future__ import annotations

import pytest
from system.cluster.ledger import Ledger
from system.cluster.replicas import NAMESPACE, TILL, Replicas


@pytest.fixture(scope="module")
def replicas(fleet):
    installed = Replicas(fleet)
    try:
        try:
            installed.install()
        except BaseException:
            print(fleet.cluster.tell(NAMESPACE))
            raise
        yield installed
    finally:
        installed.close()


@pytest.fixture(scope="module")
def ledger(replicas):
    signing = Ledger(replicas, TILL, replicas.injected)
    signing.start()
    signing.keeps_signing()
    yield signing
    signing.close()


def test_one_of_two_adapters_is_killed(replicas, ledger):
    for pod in replicas.adapters():
        replicas.cluster.on_node(
            "kill", "-KILL", str(replicas.cluster.process_of(pod, "adapter", NAMESPACE))
        )
        ledger.keeps_signing(20)
        replicas.wait_ready()
    ledger.account()


def test_both_are_rolled_one_after_the_other(replicas, ledger):
    before = set(replicas.adapters())
    replicas.kubectl("rollout", "restart", "deployment/capsign-adapter", f"--namespace={NAMESPACE}")
    replicas.wait_ready()
    ledger.keeps_signing(20)
    assert before.isdisjoint(replicas.adapters())
    ledger.account()


def test_in_the_end_both_records_are_the_same(ledger):
    ledger.stop()
    ledger.account()
    ledger.reconcile()
