"""Agents and clients of the release before work through a rollout, and nothing that they do weakens
it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import capsign
import pytest
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_evidence.leaf_kinds import Act
from support import older_application, previous_release
from support.dev import Dev
from support.drill import Drill
from support.drill_evidence import Evidence
from support.fleet import WORKLOADS, Fleet
from support.key_calls import eventually

STAGES = {
    "propagation": "6s",
    "canary": [{"percent": 50, "bake": "3s"}],
    "dual_sign": "3s",
    "promote": "3s",
    "retire": "1s",
    "triggers": {"min_samples": 20, "min_verifications": 20, "p99": "30s"},
}
OLDER_AGENT = "other"
"""The workload whose agent is of the release before."""


@pytest.fixture
def older(short_dir) -> dict[str, str]:
    return previous_release.unpacked(short_dir / "older")


@pytest.fixture
def fleet(short_dir, older):
    made = Fleet(short_dir / "d", STAGES, older={OLDER_AGENT: older})
    yield made
    made.close()


@contextmanager
def signing(socket: str, environment: dict[str, str], said: Path):
    """An application with the client of the release before, at that socket."""
    command = [sys.executable, older_application.__file__, socket]
    with said.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, env=os.environ | environment
        )
        yield
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def told(said: Path) -> list[dict]:
    return [json.loads(line) for line in said.read_text().splitlines()]


def test_an_older_agent_and_older_clients_work_through_a_rollout(fleet, older, short_dir):
    """The older client signs at the older agent and at one of now; the newer one at all three."""
    sayings = [short_dir / workload for workload in WORKLOADS[:2]]
    with (
        Drill(fleet, callers=12, silent=[OLDER_AGENT]) as drill,
        signing(fleet.sockets[WORKLOADS[0]], older, sayings[0]),
        signing(fleet.sockets[WORKLOADS[1]], older, sayings[1]),
    ):
        fleet.start()
        fleet.until(lambda now: now.stage == RolloutStage.DONE)
        drill.more()
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
    (_, last) = evidence.steps[-1]
    assert last.act is Act.ROLLOUT_DONE
    assert evidence.undue(last) == []
    for said in sayings:
        calls = told(said)
        assert {call["client"] for call in calls} == {
            str(short_dir / "older" / "clients/python/capsign/__init__.py")
        }
        assert [call for call in calls if "error" in call] == []
        assert {call["version"] for call in calls} == {1, 2}
        for call in calls:
            assert call["leaf"] in evidence.signed


PLACE = {"grant": "orders-jwt", "protocol": "jwt", "role": "issuer"}


def refused(reason: str, call) -> None:
    with pytest.raises(capsign.Refused) as caught:
        call()
    assert caught.value.reason == reason


def test_a_newer_agent_at_an_older_adapter_until_that_is_upgraded(short_dir):
    """Adapters are to be upgraded first. Where they were not, what the older one can do works as
    ever, the rest is refused in plain words, and nothing is taken for more than it is; records that
    it does not understand wait in the journal.
    """
    older = previous_release.unpacked(short_dir / "older", previous_release.EVERYTHING)
    dev = Dev(short_dir / "d", release=older)
    journal = Path(dev.about["state"]) / "journal"
    try:
        dev.end(dev.agent)
        agent = dev.start_agent()
        dev.wait_serving(dev.about["agent"]["health"])
        with capsign.Signer(dev.socket()) as signer:
            made = signer.sign(b"m", algorithm="ES256", **PLACE)
            assert signer.verify(b"m", made, **PLACE).kid == made.kid
            refused("SIGNATURE_MISSING", lambda: signer.verify(b"m", made, rule="both", **PLACE))
            refused("INPUT_MALFORMED", lambda: signer.sign(b"m", **PLACE))
            refused("ADAPTER_TOO_OLD", lambda: signer.jwks(**PLACE))
        log = Path(dev.about["agent"]["log"])
        assert eventually(lambda: '"audit.refused"' in log.read_text())
        (life,) = [one for one in journal.iterdir() if list(one.glob("*.seg"))]
        dev.end(dev.adapter())
        agent.terminate()
        agent.wait(timeout=60)
        assert list(life.glob("*.seg")), "nobody has taken them"
        dev.start_adapter()
        dev.wait_serving(dev.about["adapters"][0]["health"])
        dev.start_agent()
        dev.wait_serving(dev.about["agent"]["health"])
        with capsign.Signer(dev.socket()) as signer:
            assert signer.verify(b"m", made, **PLACE).kid == made.kid
            assert json.loads(signer.jwks(**PLACE).body)["keys"]
            assert signer.sign(b"m", **PLACE).signatures
        assert eventually(lambda: not list(life.glob("*.seg")))
    finally:
        dev.close()
