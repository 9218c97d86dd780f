"""A whole replica looks at itself: real TLS, real sockets, a real store."""

from __future__ import annotations

import pytest
from capsign_adapter.assembly.drift import LOOK_S, MAKING_S, listening
from capsign_adapter.config import Listen
from capsign_adapter.drift import tls_look
from capsign_evidence.drift_leaf import DriftKind
from support.replica import RunningReplica

LISTEN = Listen(
    address="127.0.0.1:0",
    admin_address="127.0.0.1:0",
    public_address="127.0.0.1:0",
    streams=16,
)


@pytest.fixture
def running(tmp_path, rig):
    replica = RunningReplica(tmp_path, rig, listen=LISTEN)
    yield replica
    replica.stop()


def test_a_replica_finds_nothing_wrong_with_itself(running):
    watch = running.replica.drift.watch
    assert not watch.look()
    assert watch.state.rows == ()
    (report,) = watch.state.reports
    assert report.software
    assert dict(report.settings)["control.poll_ms"] == "50"


def test_what_nobody_knows_is_named_within_a_minute_by_the_times_in_use():
    """It appears just after a look has read the token. By then that look has only to be written;
    the next one comes LOOK_S later and begins with the listeners, each of which may be slow in
    every step of two handshakes, and looks twice at what is new.
    """
    listeners = len(("workloads", "people", "enrolment", "verifiers"))
    of_one = 4 * tls_look.TIMEOUT_S + tls_look.QUIET_S
    assert LOOK_S + listeners * of_one + MAKING_S < 60


def test_its_listeners_are_what_the_policy_demands(running):
    """gRPC's and aiohttp's: TLS 1.3 and nothing older, and a certificate where one is wanted."""
    config = running.replica.config
    seen = {at.name: tls_look.look(at) for at in listening(config, running.replica.listeners)}
    assert seen.keys() == {"listener/workloads", "listener/people", "listener/verifiers"}
    for name, view in seen.items():
        assert view is not None, name
        assert (view.facts["oldest"], view.facts["newest"]) == ("1.3", "1.3")
        assert view.facts["client-certificate"] == view.facts["wanted"], name


def test_the_metric_counts_by_kind(running):
    running.rig.token.generate_secret("capsign/demo/stranger/1")
    running.replica.drift.watch.look()
    metrics = running.metrics.snapshot()
    assert metrics["capsign.drift"]["unknown-object",] == 1
    assert sum(metrics["capsign.drift"].values()) == 1
    assert metrics["capsign.invariant.violations"]["I8",] == 1
    assert {name for (name,) in metrics["capsign.drift"]} == {
        kind.name.lower().replace("_", "-") for kind in DriftKind
    }


def test_a_replica_that_stops_is_no_replica_of_another_version(running):
    running.replica.drift.watch.look()
    store = running.rig.beside().store
    assert len(store.drift().reports) == 1
    running.replica.drift.end()
    assert store.drift().reports == ()
