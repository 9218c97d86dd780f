"""An adapter is killed in the middle of `rollout start` and of taking a rollout back, whether a
person or a trigger does: what was begun has happened whole or not at all, and what is asked again
goes on. What a trigger decides nobody has to ask again.
"""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_evidence.rollout_leaf import RolloutStep
from capsign_wire.adapter.v1 import inventory_pb2, inventory_pb2_grpc, rollouts_pb2_grpc
from capsign_wire.adapter.v1 import rollouts_pb2 as pb
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2
from support.dev import Dev
from support.fleet import KEY, TENANT, policy
from support.key_calls import People, eventually
from support.postgres import PostgresServer
from support.rollout_crash_adapter import ROLLING_BACK, STARTING, TAKING_BACK

pytestmark = pytest.mark.system

MODULE = "support.rollout_crash_adapter"
STAGES = {
    "propagation": "3s",
    "canary": [{"percent": 99, "bake": "1h"}],
    "dual_sign": "0s",
    "promote": "1h",
    "retire": "1h",
}
NAMED = {"tenant": TENANT, "key": KEY}


@pytest.fixture(scope="module")
def server():
    made = PostgresServer()
    yield made
    made.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def dev(request, short_dir):
    document = short_dir / "policy.yaml"
    document.write_text(policy(STAGES))
    arguments = ["--policy", str(document)]
    if request.param == "postgresql":
        server = request.getfixturevalue("server")
        arguments += ["--store", server.new_database()]
        arguments += ["--store-password-file", str(server.password_file_for_clients)]
    running = Dev(short_dir / "d", arguments=tuple(arguments))
    yield running
    running.close()


class Operator:
    """At the adapter, whichever life of it runs."""

    def __init__(self, dev: Dev) -> None:
        about = dev.about
        files = (
            about["ca"],
            *map(about["clients"]["operator"].get, ("private_key", "certificate")),
        )
        credentials = grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files))
        options = [("grpc.ssl_target_name_override", about["server_name"])]
        self.channel = grpc.secure_channel(about["adapters"][0]["admin"], credentials, options)
        self.rollouts = rollouts_pb2_grpc.RolloutServiceStub(self.channel)
        self.people = People(self.channel, TENANT, KEY)

    def newest(self) -> pb.Rollout | None:
        request = pb.ListRolloutsRequest(**NAMED)
        return next(iter(self.rollouts.ListRollouts(request, timeout=20).rollouts), None)

    def drift(self) -> list[str]:
        stub = inventory_pb2_grpc.InventoryServiceStub(self.channel)
        found = stub.ListDrift(inventory_pb2.ListDriftRequest(look=True), timeout=60).differences
        return [f"{inventory_pb2.DriftKind.Name(one.kind)} {one.subject}" for one in found]


class Lives:
    """One adapter after another, each killed at a step of what it is asked for."""

    def __init__(self, dev: Dev) -> None:
        self.dev = dev

    def begin(self, step: str) -> None:
        """Another one, which will be killed at that step."""
        self.process = self.dev.replace_adapter(module=MODULE, CAPSIGN_TEST_CRASH=step)
        self.operator = Operator(self.dev)

    def killed(self, method: str, request, then: str) -> None:
        """Ask, and see it killed; the next one will be killed at the step `then`."""
        with pytest.raises(grpc.RpcError):
            getattr(self.operator.rollouts, method)(request, timeout=30)
        self.operator.channel.close()
        self.ended()
        self.begin(then)

    def ended(self) -> None:
        """See it killed, by itself."""
        assert self.process.wait(timeout=60) == -signal.SIGKILL

    def begin_unseen(self, step: str) -> None:
        """Another one, which will be killed at that step, perhaps before it serves."""
        self.process = self.dev.start_adapter(module=MODULE, CAPSIGN_TEST_CRASH=step)


def whole(dev: Dev, operator: Operator) -> None:
    """Nothing is left half: the token holds what the store knows, and the log has a step for each
    revision of the rollout.
    """
    assert operator.drift() == []
    row = operator.newest()
    if row is not None:
        assert logged(dev, row.id) == list(range(1, row.revision + 1))


def logged(dev: Dev, rollout: bytes) -> list[int]:
    """The revisions of that rollout that the log has a step for."""
    return [
        entry.revision
        for entry in dev.entries()
        if isinstance(entry, RolloutStep) and entry.rollout == rollout
    ]


def states(operator: Operator) -> dict[int, int]:
    return {one.version: one.state for one in operator.people.show().key.versions}


def at_rest(dev: Dev, number: int) -> tuple[RolloutStage, int]:
    """Of that rollout as the store has it, with nobody to ask: its stage, and the state of the
    version that it leads to. Its history and the log have each of its revisions.
    """
    store = dev.opened_store()
    try:
        row = store.rollout(TENANT, KEY, number)
        history = [step.revision for step in store.rollout_steps(row.id)]
        (state,) = [
            each.state
            for each in store.key_versions()
            if (each.key, each.version) == (KEY, row.after.version)
        ]
    finally:
        store.close()
    assert history == logged(dev, row.id) == list(range(1, row.revision + 1))
    return row.stage, state


def test_nothing_is_left_half(dev):
    lives = Lives(dev)
    lives.begin(STARTING[0])
    for step, then in pairwise([*STARTING, ""]):
        lives.killed("StartRollout", pb.StartRolloutRequest(**NAMED), then)
        assert (lives.operator.newest() is not None) == (step == "started"), step
        assert set(states(lives.operator)) == {1, 2}, "what was made waits for the next one"
        assert states(lives.operator)[1] == signing_pb2.KEY_STATE_ACTIVE
        whole(dev, lives.operator)
    assert eventually(lambda: lives.operator.newest().stage == RolloutStage.CANARY)
    lives.begin(TAKING_BACK[0])
    for step, then in pairwise([*TAKING_BACK, ""]):
        lives.killed("AbortRollout", pb.AbortRolloutRequest(**NAMED), then)
        aborted = lives.operator.newest().stage == RolloutStage.ABORTED
        assert aborted == (step == "moved"), step
        assert states(lives.operator)[1] == signing_pb2.KEY_STATE_ACTIVE
        assert (states(lives.operator)[2] == signing_pb2.KEY_STATE_DEACTIVATED) == aborted
        whole(dev, lives.operator)
    rolled_back_by_a_trigger(dev, lives)


def rolled_back_by_a_trigger(dev: Dev, lives: Lives) -> None:
    """Nobody asks: each life finds the breach that is counted, and is killed a step further."""
    operator = lives.operator.rollouts
    begun = operator.StartRollout(pb.StartRolloutRequest(**NAMED), timeout=30).rollout
    assert eventually(lambda: lives.operator.newest().stage == RolloutStage.CANARY)
    lives.begin(ROLLING_BACK[0])
    failed = pb.ReportVerificationsRequest(
        **NAMED,
        version=begun.after.version,
        algorithm=algorithms_pb2.ALGORITHM_ES256,
        failed=1000,
    )
    lives.operator.rollouts.ReportVerifications(failed, timeout=30)
    lives.operator.channel.close()
    for step, then in pairwise([*ROLLING_BACK, ""]):
        lives.ended()
        before = (RolloutStage.CANARY, signing_pb2.KEY_STATE_ACTIVE)
        after = (RolloutStage.ROLLED_BACK, signing_pb2.KEY_STATE_DEACTIVATED)
        assert at_rest(dev, begun.number) == (after if step == "moved" else before), step
        if then:
            lives.begin_unseen(then)
    lives.begin("")
    request = pb.GetRolloutRequest(**NAMED, number=begun.number)
    last = lives.operator.rollouts.GetRollout(request, timeout=30).steps[-1]
    assert (last.act, last.actor, last.after.verify_failed) == ("rolled-back", "", 1000)
    assert states(lives.operator)[1] == signing_pb2.KEY_STATE_ACTIVE
    whole(dev, lives.operator)
