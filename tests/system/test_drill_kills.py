"""The drill on PostgreSQL, with a replica killed in the middle of every step of the rollout.

A lock on the table that only steps write to holds the transaction of the replica that takes a step.
That one is killed; then either its transaction is let through, so that the step has happened and
nobody was told, or the database drops it, and the step has not happened.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

import grpc
import psycopg
import pytest
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import rollouts_pb2 as pb
from capsign_wire.failures import FailureError
from psycopg.conninfo import conninfo_to_dict
from support.drill import Drill
from support.drill_evidence import Evidence
from support.fleet import KEY, PATIENCE_S, TENANT, Fleet
from support.postgres import PostgresServer

pytestmark = pytest.mark.postgres

STAGES = {
    "propagation": "20s",
    "canary": [{"percent": 50, "bake": "1h"}, {"percent": 80, "bake": "1h"}],
    "dual_sign": "1h",
    "promote": "1h",
    "retire": "1h",
    "triggers": {"min_samples": 0, "p99": "0s", "error_rate": "100%"},
}
"""What it does by itself are the first two steps; the others are taken by the replica that is asked
for them. A replica that is killed costs calls: that rolls nothing back here.
"""

STEPS = (
    Act.ROLLOUT_PROPAGATES,
    Act.ROLLOUT_CANARY,
    Act.ROLLOUT_WIDENED,
    Act.ROLLOUT_SIGNS_TWICE,
    Act.ROLLOUT_PROMOTED,
    Act.ROLLOUT_RETIRES,
    Act.ROLLOUT_DONE,
)

BY_ITSELF = 2
"""So many of the steps."""


@pytest.fixture(scope="module")
def server():
    made = PostgresServer()
    yield made
    made.close()


@pytest.fixture
def database(server) -> str:
    """The name of an empty one."""
    return str(conninfo_to_dict(server.new_database())["dbname"])


@pytest.fixture
def fleet(server, database, short_dir):
    url = server.url(database, host="127.0.0.1")  # by their ports connections tell whose they are
    made = Fleet(short_dir / "d", STAGES, store=(url, server.password_file_for_clients))
    yield made
    made.close()


LOCK = "LOCK TABLE rollout_steps IN SHARE MODE"
WAITING = """SELECT pid, client_port FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE relation = 'rollout_steps'::regclass AND NOT granted ORDER BY waitstart"""


class Database:
    """Holds steps up, and knows who waits for it."""

    def __init__(self, fleet: Fleet, connect: Callable[[], psycopg.Connection]) -> None:
        self._fleet = fleet
        self._connect = connect
        self._looker = connect()

    @contextmanager
    def steps_held(self) -> Iterator[None]:
        """No step of a rollout can be written meanwhile; what was sent for it waits."""
        with self._connect() as holder, holder.transaction():
            holder.execute(LOCK)
            yield

    @contextmanager
    def steps_held_after(self, act: Callable[[], object]) -> Iterator[None]:
        """The same from the very end of an act that writes a step: locks are given in turn, and
        ours is the next one.
        """
        with ThreadPoolExecutor(2) as pool, self._connect() as holder:
            holder.autocommit = False
            with self.steps_held():
                acting = pool.submit(act)
                self.waiting(1)
                locking = pool.submit(holder.execute, LOCK)
                self.waiting(2)
            acting.result(PATIENCE_S)
            locking.result(PATIENCE_S)
            yield
            holder.rollback()

    def waiting(self, many: int = 1) -> tuple[int, int]:
        """The session that waits first, and the port that it comes from, once so many wait."""
        pause, end = threading.Event(), time.monotonic() + PATIENCE_S
        while True:
            found = self._looker.execute(WAITING).fetchall()
            if len(found) >= many:
                session, port = found[0]
                return session, port
            assert time.monotonic() < end, f"nobody takes a step of {self._fleet.get().rollout}"
            pause.wait(0.02)

    def drop(self, session: int) -> None:
        """What it has begun has not happened."""
        self._looker.execute("SELECT pg_terminate_backend(%s, 10000)", (session,))


def replica_of(fleet: Fleet, port: int) -> int:
    """Whose connection it is."""
    for number, process in enumerate(fleet.replicas):
        if any(each.laddr.port == port for each in process.net_connections("tcp")):
            return number
    raise AssertionError(f"no replica has port {port}")


def place_of(row: pb.Rollout) -> tuple[int, int]:
    """Where it is."""
    return row.stage, row.step


def has_left(place: tuple[int, int], row: pb.Rollout) -> bool:
    """Whether it has gone on from there."""
    return place_of(row) != place


def promote(fleet: Fleet, revision: int, replica: int | None = None) -> None:
    """Ask for the next step, of a rollout that has had so many; whether it was taken is not
    known.
    """
    request = pb.PromoteRolloutRequest(tenant=TENANT, key=KEY, revision=revision)
    with suppress(FailureError, grpc.RpcError):
        fleet.ask("PromoteRollout", request, replica)


def kill_who_takes_a_step(fleet: Fleet, database: Database, *, happens: bool) -> int:
    """Steps are held up. Returns which replica it was."""
    session, port = database.waiting()
    replica = replica_of(fleet, port)
    fleet.kill(replica)
    if not happens:
        database.drop(session)
    return replica


def test_a_replica_is_killed_in_the_middle_of_every_step(server, database, fleet):
    held = Database(fleet, lambda: server.connect(database))
    with Drill(fleet) as drill, ThreadPoolExecutor() as pool:
        for number in range(len(STEPS)):
            happens = number % 2 == 0
            row = fleet.get().rollout if number else pb.Rollout()
            holding = held.steps_held() if number else held.steps_held_after(fleet.start)
            with holding:
                if number >= BY_ITSELF:
                    pool.submit(promote, fleet, row.revision, number % 2)
                row = fleet.get().rollout
                killed = kill_who_takes_a_step(fleet, held, happens=happens)
            if number >= BY_ITSELF and not happens:
                promote(fleet, row.revision, 1 - killed)
            fleet.until(partial(has_left, place_of(row)))
            fleet.start_again(killed)
            drill.more()
        assert place_of(fleet.get().rollout) == (RolloutStage.DONE, 0)
        rollout = fleet.get().rollout.id
    outcome = drill.outcome
    assert outcome.failed == []
    assert all(all(one.verified) for one in outcome.held)
    fleet.end_agents()
    store = fleet.dev.opened_store()
    try:
        evidence = Evidence(store)
    finally:
        store.close()
    assert evidence.disagreements(outcome) == []
    steps = [step for _, step in evidence.steps if step.rollout == rollout]
    assert [step.act for step in steps] == [Act.ROLLOUT_STARTED, *STEPS]
    assert [step.revision for step in steps] == list(range(1, len(steps) + 1))
    assert evidence.undue(steps[-1]) == []
    epochs = [step.epoch for step in steps]
    assert epochs == sorted(set(epochs))
