"""An adapter is killed in the middle of `rollout start` and of taking a rollout back: what was
begun has happened whole or not at all, and what is asked again goes on.
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
from capsign_wire.types.v1 import signing_pb2
from support.dev import Dev
from support.fleet import KEY, TENANT, policy
from support.key_calls import People, eventually
from support.postgres import PostgresServer
from support.rollout_crash_adapter import STARTING, TAKING_BACK

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
        assert self.process.wait(timeout=60) == -signal.SIGKILL
        self.begin(then)


def whole(dev: Dev, operator: Operator) -> None:
    """Nothing is left half: the token holds what the store knows, and the log has a step for each
    revision of the rollout.
    """
    assert operator.drift() == []
    row = operator.newest()
    if row is not None:
        steps = [
            entry.revision
            for entry in dev.entries()
            if isinstance(entry, RolloutStep) and entry.rollout == row.id
        ]
        assert steps == list(range(1, row.revision + 1))


def states(operator: Operator) -> dict[int, int]:
    return {one.version: one.state for one in operator.people.show().key.versions}


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
