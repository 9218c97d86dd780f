"""`rollouts.readiness: required` with whole agents: a version waits for who verified before, in a
rollout and by hand.
"""

from __future__ import annotations

import capsign
import pytest
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_wire.adapter.v1 import rollouts_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.drill import WISH
from support.fleet import GRANT, KEY, TENANT, Fleet, spiffe_id
from support.key_calls import People, eventually

pytestmark = pytest.mark.system

STAGES = {
    "propagation": "3s",
    "readiness": "required",
    "canary": [{"percent": 99, "bake": "10m"}],
    "dual_sign": "0s",
    "promote": "10m",
    "retire": "10m",
}
VERIFIERS = ("app", "other")


@pytest.fixture
def fleet(short_dir):
    made = Fleet(short_dir / "d", STAGES)
    yield made
    made.close()


def fetch(fleet: Fleet, workload: str, version: int) -> None:
    """This workload's agent fetches public keys until that version is among them."""
    with capsign.Signer(fleet.sockets[workload]) as signer:
        while version not in {key.version for key in signer.public_keys(algorithm="ES256", **WISH)}:
            fleet.get()


def missing(row: pb.Rollout) -> list[tuple[str, str]]:
    return [(each.grant, each.workload) for each in row.readiness.missing_readers]


def test_a_version_waits_for_the_agent_that_has_not_fetched_it(fleet):
    for workload in VERIFIERS:
        fetch(fleet, workload, 1)
    store = fleet.dev.opened_store()
    expected = {spiffe_id(each) for each in VERIFIERS}
    assert eventually(
        lambda: {each.workload for each in store.key_readers(TENANT, KEY)} >= expected
    )
    store.close()
    fleet.start()
    version = fleet.get().rollout.after.version
    fetch(fleet, "app", version)
    late = [(GRANT, spiffe_id("other"))]
    row = fleet.until(lambda now: missing(now) == late and now.remaining_ms == 0)
    assert (row.stage, row.readiness.required) == (RolloutStage.PROPAGATE, True)
    people = People(fleet.channel, TENANT, KEY)
    with pytest.raises(FailureError, match=spiffe_id("other")) as caught:
        people.move("activate", version)
    assert caught.value.reason == reasons.REASON_VERIFIERS_NOT_READY
    fetch(fleet, "other", version)
    assert fleet.until(lambda now: now.stage == RolloutStage.CANARY).workloads_in == 3
