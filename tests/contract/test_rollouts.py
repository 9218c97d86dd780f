"""A rollout on every store: at each of its steps the replica that has taken it is gone, and two
that have just started go on at once.
"""

from __future__ import annotations

import threading

import pytest
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import decode
from capsign_evidence.rollout_leaf import RolloutStep
from support.adapter_rig import OPERATOR, AdapterRig
from support.drafts import check_log
from support.rollout_rig import KEY, Clock, RolloutRig
from support.rollouts import ACTIVE, DEACTIVATED


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def rig(request, tmp_path):
    if request.param == "sqlite":
        made = AdapterRig(tmp_path / "store")
    else:
        place = request.getfixturevalue("postgres_place")
        made = AdapterRig(tmp_path / "store", url=place.url, password_file=place.password_file)
    yield made
    made.close()


class Told(Clock):
    """The store's clock is not asked: a test tells what time it is."""


def fresh(rig, clock) -> RolloutRig:
    one = RolloutRig(rig.beside(), clock)
    one.rig.store.clock_ms = lambda: None
    return one


def test_a_rollout_outlives_every_replica_and_takes_each_step_once(rig):
    clock = Told()
    first = RolloutRig(rig, clock)
    rig.store.clock_ms = lambda: None
    first.start()
    stages = []
    while not (row := first.newest()).is_final:
        stages.append((row.stage, row.step))
        clock.now += 3_600_000
        pair = [fresh(rig, clock) for _ in range(2)]
        threads = [threading.Thread(target=one.look) for one in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        now = first.newest()
        if (now.stage, now.step) == (row.stage, row.step):
            pair[0].rollouts.promote(OPERATOR, *KEY)
        for one in pair:
            one.rig.close()
    assert row.stage is RolloutStage.DONE
    versions = [each for each in rig.store.key_versions() if each.key == "orders"]
    assert [each.state for each in versions] == [DEACTIVATED, ACTIVE]
    entries = [decode(entry) for entry in check_log(rig.store)]
    steps = [entry for entry in entries if isinstance(entry, RolloutStep)]
    assert [step.revision for step in steps] == list(range(1, len(steps) + 1))
    taken = [step.act for step in steps if step.act != Act.ROLLOUT_DOUBTED]
    assert taken.count(Act.ROLLOUT_WIDENED) == 2
    assert len(taken) - 1 == len(set(taken)) == 8
