"""`capsign rollout` against a real adapter over TLS, with stages of a second and less."""

from __future__ import annotations

import io
import json

import pytest
from capsign_cli import __main__ as cli
from capsign_cli import output, rollout_view
from capsign_wire.adapter.v1 import rollouts_pb2 as pb
from rich.console import Console
from support.adapter_rig import OPERATOR, POLICY, AdapterRig
from support.replica import RunningReplica

QUICK = (
    POLICY
    + """
rollouts:
  propagation: 3s
  canary: [{percent: 99, bake: 10m}]
  dual_sign: 0s
  promote: 0s
  retire: 0s
  triggers: {min_samples: 0}
"""
)


@pytest.fixture
def run(tmp_path, capsys):
    running = RunningReplica(tmp_path, AdapterRig(tmp_path / "store", QUICK))
    certificate, key = running.authority.issue(OPERATOR).write(tmp_path, "operator")
    at = ["--adapter", running.address, "--ca", str(tmp_path / "ca.pem"), "--cert"]
    at += [str(certificate), "--key", str(key), "--server-name", "localhost"]

    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(["rollout", *arguments, *at])
        out = capsys.readouterr()
        return ended.value.code, out.out, out.err

    yield call
    running.stop()
    output.start([])


def test_a_rollout_from_start_to_undo(run):
    code, out, _ = run("start", "demo/orders", "-o", "json")
    assert code == 0
    started = json.loads(out)
    assert (started["number"], started["from"], started["to"]) == (1, "version 1", "version 2")
    assert run("start", "demo/orders")[0] == 1
    assert run("start", "demo/orders", "--overtake", "-o", "json")[0] == 2
    code, out, err = run("status", "demo/orders")
    assert (code, "ROLLOUT_UNDER_WAY" in err) == (3, True)
    code, out, err = run("undo", "demo/orders")
    assert (code, "under way" in err) == (1, True)
    assert run("pause", "demo/orders")[0] == 0
    code, out, err = run("status", "demo/orders", "--timeout", "30")
    assert (code, "ROLLOUT_PAUSED" in err) == (1, True)
    assert "`capsign rollout history demo/orders`" in err
    assert run("resume", "demo/orders")[0] == 0
    code, out, err = run("promote", "demo/orders", "--full", "--yes")
    while "ROLLOUT_CONFLICT" in err:
        code, out, err = run("promote", "demo/orders", "--full", "--yes")
    assert code == 0, err
    code, out, _ = run("status", "demo/orders", "--timeout", "1m")
    assert (code, "done: all sign with what is new" in out) == (0, True)
    code, out, _ = run("get", "demo/orders", "-w")
    assert (code, out) == (0, "demo/orders · #1 · done\n")
    assert json.loads(run("get", "demo/orders", "-o", "json")[1])["pace"] == "ended"
    code, _, err = run("promote", "demo/orders", "--full")
    assert (code, "ROLLOUT_CONFLICT" in err, "Go on?" in err) == (1, True, False)
    code, _, err = run("undo", "demo/orders", "--to", "1")
    assert (code, "is the only one that is done" in err) == (1, True)
    code, out, _ = run("undo", "demo/orders", "-o", "json")
    assert (code, json.loads(out)["to"]) == (0, "version 3")
    code, out, _ = run("abort", "demo/orders")
    assert (code, "not undone" in out) == (0, True)
    assert run("status", "demo/orders")[0] == 1
    assert run("status", "demo/orders", "--number", "1")[0] == 0
    code, out, _ = run("history", "demo/orders", "-o", "json")
    assert [one["stage"] for one in json.loads(out)["rollouts"]] == ["aborted", "done"]
    code, out, _ = run("history", "demo/orders", "--number", "1", "-o", "json")
    steps = json.loads(out)["steps"]
    assert [steps[0]["act"], steps[-1]["act"]] == ["started", "done"]
    assert run("list")[0] == 0


def test_what_is_reported_is_counted_in_the_log(run):
    told = ("report", "demo/orders", "--version", "1", "--verified", "7")
    code, out, _ = run(*told, "--algorithm", "ES256", "-o", "json")
    assert (code, json.loads(out)["verified"]) == (0, 7)
    assert run(*told, "--algorithm", "RSA")[0] == 2
    assert run(*told[:3], "9", "--algorithm", "ES256")[0] == 1


def test_one_that_was_overtaken_says_so_and_by_which(run):
    run("start", "demo/orders")
    assert run("start", "demo/orders", "--overtake", "--yes")[0] == 0
    code, _, err = run("status", "demo/orders", "--number", "1")
    assert (code, "ROLLOUT_OVERTAKEN" in err, "Rollout 2 came before" in err) == (1, True, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("start", "orders"),
        ("start", "demo/orders", "--algorithm", "RSA"),
        ("get", "/"),
        ("status", "demo/orders", "--timeout", "1 day"),
        ("report", "demo/orders", "--version", "1", "--algorithm", "ES256", "--failed", "-1"),
    ],
)
def test_wrong_use(run, arguments):
    assert run(*arguments)[0] == 2


def seen(**changes) -> pb.Rollout:
    """A canary of 10 %, half way."""
    made = pb.Rollout(
        tenant="demo",
        key="orders",
        number=3,
        before=pb.SignsWith(version=1),
        after=pb.SignsWith(version=2),
        stage=pb.ROLLOUT_STAGE_CANARY,
        step=1,
        pace=pb.ROLLOUT_PACE_RUNNING,
        remaining_ms=300_000,
        workloads=40,
        workloads_in=4,
        plan=[
            pb.RolloutPlanStage(stage=pb.ROLLOUT_STAGE_PUBLISH),
            pb.RolloutPlanStage(stage=pb.ROLLOUT_STAGE_PROPAGATE, bake_ms=900_000),
            pb.RolloutPlanStage(stage=pb.ROLLOUT_STAGE_CANARY, percent=1, bake_ms=600_000),
            pb.RolloutPlanStage(stage=pb.ROLLOUT_STAGE_CANARY, percent=10, bake_ms=600_000),
            pb.RolloutPlanStage(stage=pb.ROLLOUT_STAGE_PROMOTE, bake_ms=600_000),
        ],
        triggers=[
            pb.RolloutTrigger(name="error rate", value=2500, bound=10_000, samples=80, needed=100),
            pb.RolloutTrigger(
                name="p99",
                value=724,
                bound=500,
                samples=400,
                needed=100,
                breached=True,
                is_time=True,
            ),
        ],
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def drawn(rollout: pb.Rollout) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(rollout_view.picture_of(rollout, []))
    return console.export_text()


def test_a_person_sees_stages_cohort_samples_against_bounds_and_time_left():
    text = drawn(seen())
    assert "✓ canary 1%" in text
    assert "● canary 10%   ████████████░░░░░░░░░░░░ 5 min left" in text
    assert "4 of 40" in text
    assert "error rate 0.25% (bound 1%, 80 samples of the 100 it takes)" in text
    assert "p99 724 ms (bound 500 ms, 400 samples) BREACHED" in text


def test_without_a_terminal_it_is_a_line():
    assert rollout_view.line_of(seen()) == (
        "demo/orders · #3 · canary 10% · 4 of 40 workloads · error rate 0.25% (bound 1%, 80 "
        "samples of the 100 it takes) · p99 724 ms (bound 500 ms, 400 samples) BREACHED · "
        "5 min left"
    )
    paused = seen(pace=pb.ROLLOUT_PACE_INCONCLUSIVE)
    assert "paused: too few samples to say" in rollout_view.line_of(paused)


@pytest.mark.parametrize("stage", [value for value in pb.RolloutStage.values() if value])
def test_every_stage_has_its_words(stage):
    found = seen(stage=stage, step=0)
    name = rollout_view.stage_of(found)
    assert rollout_view.WORDS[name] in drawn(found)


def before_the_canary(**readiness) -> pb.Rollout:
    """One reader of four has not fetched the new public keys."""
    found = seen(stage=pb.ROLLOUT_STAGE_PROPAGATE, step=0, **readiness)
    told = found.readiness
    told.fetched, told.missing, told.anonymous_fetches = 3, 1, 12
    reader = told.missing_readers.add(grant="orders-jwt", workload="spiffe://x/app", version=1)
    reader.fetched_at.FromMilliseconds(1_790_000_000_000)
    return found


def test_who_has_not_fetched_the_new_public_keys_is_named():
    found = before_the_canary()
    count = "3 of 4 readers have the new public keys, 12 fetches by HTTPS"
    who = "spiffe://x/app (orders-jwt) has version 1, of 2026-09-21T14:13:20Z"
    assert rollout_view.line_of(found) == f"demo/orders · #3 · propagate · {count} · 5 min left"
    assert rollout_view.verifiers_text(found) == f"{count}\nmissing: {who}"
    assert count in drawn(found)
    assert who in drawn(found)
    values = rollout_view.values_of(found)["verifiers"]
    assert (values["fetched"], values["missing"], values["fetches_by_https"]) == (3, 1, 12)
    assert values["missing_readers"][0]["workload"] == "spiffe://x/app"
    assert rollout_view.verifiers_text(seen()) == ""


def test_a_canary_that_waits_for_verifiers_says_so():
    found = before_the_canary(remaining_ms=0)
    assert "waits for the others" not in rollout_view.readiness_text(found)
    found.readiness.required = True
    assert "the canary waits for the others" in rollout_view.readiness_text(found)
    found.readiness.missing_readers[0].workload = ""
    assert "whoever asks by HTTPS (orders-jwt)" in drawn(found)
