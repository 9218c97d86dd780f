"""What rolls a rollout back, through whole agents: at its bound and above it, below its minimum of
samples, while clocks step, and over a restart of all replicas.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import capsign
import psutil
import pytest
from capsign_adapter.model.lifecycle import RolloutPace, RolloutStage
from capsign_wire.adapter.v1 import rollouts_pb2 as pb
from support.dev import stopped
from support.drill import WISH
from support.fleet import KEY, TENANT, WORKLOADS, Fleet

STAGES = {
    "propagation": "3s",
    "canary": [{"percent": 99, "bake": "10m"}],
    "dual_sign": "0s",
    "promote": "10m",
    "retire": "10m",
    "triggers": {
        "error_rate": "10%",
        "verify_failure_rate": "10%",
        "p99": "2s",
        "min_samples": 30,
        "min_verifications": 20,
    },
}
STRICT = "strict"
"""A grant under which each call is refused, for the custody of the key."""

CALLS = 15
"""Of each workload: without those of any one of them there are still enough samples."""

Answer = capsign.Signature | capsign.CapsignError


@pytest.fixture(scope="module")
def fleet():
    root = Path(tempfile.mkdtemp(prefix="cs-"))
    made = Fleet(root / "d", STAGES, strict=STRICT)
    yield made
    made.close()
    shutil.rmtree(root, ignore_errors=True)


def begun(fleet: Fleet) -> pb.Rollout:
    """A rollout in its canary, which has all workloads."""
    while True:
        fleet.start(overtake=True)
        row = fleet.until(lambda now: now.stage == RolloutStage.CANARY)
        if row.workloads_in == len(WORKLOADS):
            return row


def report(fleet: Fleet, version: int, verified: int, failed: int) -> None:
    """So many of each workload, at its agent."""
    for socket in fleet.sockets.values():
        with capsign.Signer(socket) as signer:
            keys = signer.public_keys(algorithm="ES256", **WISH)
            (kid,) = [key.kid for key in keys if key.version == version]
            for good, count in ((True, verified), (False, failed)):
                if count:
                    signer.report_verification(
                        kid, good, count=count, algorithm="ES256", wait=True, **WISH
                    )


def counted(fleet: Fleet, seen: Callable[[pb.RolloutSide], int], count: int) -> pb.Rollout:
    """Where it is once so many are counted, and a look later."""
    row = fleet.until(lambda now: seen(now.new_side) >= count)
    assert seen(row.new_side) == count
    sign(fleet, 1)
    return fleet.until(lambda now: now.through_leaf > row.through_leaf)


def verifications(side: pb.RolloutSide) -> int:
    return side.verified + side.verify_failed


def sign(fleet: Fleet, count: int, timeout: float = 20.0) -> list[Answer]:
    """So many calls at each agent at once; what came of them."""

    def one(socket: str) -> list[Answer]:
        with capsign.Signer(socket) as signer:
            messages = [b"m"] * count
            with suppress(capsign.Unknown):
                return signer.sign_many(messages, algorithm="ES256", timeout=timeout, **WISH)
            return []

    with ThreadPoolExecutor(len(fleet.sockets)) as pool:
        return [each for some in pool.map(one, fleet.sockets.values()) for each in some]


def sign_up_to(fleet: Fleet, total: int) -> None:
    """At the first agent, until so many signatures with what is new are made."""
    missing = total - fleet.get().rollout.new_side.signed
    with capsign.Signer(fleet.sockets[WORKLOADS[0]]) as signer:
        answers = signer.sign_many([b"m"] * missing, algorithm="ES256", **WISH)
    assert {type(answer) for answer in answers} == {capsign.Signature}


def rolled_back(fleet: Fleet) -> pb.RolloutStep:
    """The step that took it back, which waits for no report after those that decide it."""
    fleet.until(lambda now: now.stage == RolloutStage.ROLLED_BACK)
    last = fleet.get().steps[-1]
    assert (last.act, last.actor) == ("rolled-back", "")
    return last


def test_failed_verifications_below_the_minimum_at_the_bound_and_above(fleet):
    row = begun(fleet)
    report(fleet, row.after.version, 0, 3)
    row = counted(fleet, verifications, 9)
    assert row.stage == RolloutStage.CANARY, "so few say nothing"
    report(fleet, row.after.version, 27, 0)
    row = counted(fleet, verifications, 90)
    assert (row.stage, row.new_side.verify_failed) == (RolloutStage.CANARY, 9), "a tenth is allowed"
    report(fleet, row.after.version, 0, 1)
    assert rolled_back(fleet).after.verify_failed > 9


def test_calls_that_take_long(fleet):
    begun(fleet)
    pause = threading.Event()
    with ThreadPoolExecutor(1) as pool, ExitStack() as all_stopped:
        for replica in fleet.replicas:
            all_stopped.enter_context(stopped(replica))
        calls = pool.submit(sign, fleet, CALLS)
        pause.wait(2.5)
        all_stopped.close()
        assert len(calls.result(60)) == CALLS * len(WORKLOADS)
    assert rolled_back(fleet).after.p99_ms > 2000


def each_once_slowly(fleet: Fleet) -> None:
    """A call at each agent that takes longer than the bound."""
    pause = threading.Event()
    with ThreadPoolExecutor(1) as pool, ExitStack() as all_stopped:
        for replica in fleet.replicas:
            all_stopped.enter_context(stopped(replica))
        calls = pool.submit(sign, fleet, 1)
        pause.wait(2.5)
        all_stopped.close()
        assert {type(answer) for answer in calls.result(60)} == {capsign.Signature}


def test_slow_calls_below_the_minimum_at_the_bound_and_above(fleet):
    begun(fleet)
    each_once_slowly(fleet)
    row = counted(fleet, lambda side: side.timed, 3)
    assert row.stage == RolloutStage.CANARY, "so few say nothing"
    sign(fleet, 98)
    row = counted(fleet, lambda side: side.timed, 300)
    assert row.stage == RolloutStage.CANARY, "one of a hundred is allowed"
    each_once_slowly(fleet)
    assert rolled_back(fleet).after.p99_ms > 2000


def refuse(fleet: Fleet, count: int) -> None:
    """So many calls at the first agent that the adapter refuses because of the key."""
    wish = {"grant": STRICT, "protocol": WISH["protocol"], "algorithm": "HS256"}
    with capsign.Signer(fleet.sockets[WORKLOADS[0]]) as signer:
        for answer in signer.sign_many([b"m"] * count, **wish):
            assert isinstance(answer, capsign.Refused)
            assert answer.reason == "CUSTODY_TOO_WEAK"


def test_refusals_below_the_minimum_at_the_bound_and_above(fleet):
    """They are the adapter's own records, so it does not matter that one workload caused all."""
    begun(fleet)
    refuse(fleet, 10)
    row = counted(fleet, lambda side: side.refused, 10)
    assert row.stage == RolloutStage.CANARY, "13 calls say nothing"
    sign(fleet, 29)
    row = counted(fleet, lambda side: side.signed, 90)
    assert row.stage == RolloutStage.CANARY, "a tenth is allowed"
    refuse(fleet, 1)
    assert rolled_back(fleet).after.refused == 11


def without_an_answer(fleet: Fleet, count: int) -> None:
    """So many calls at each agent that no adapter answers: none of them lives to do it."""
    with suppress(psutil.NoSuchProcess), ExitStack() as all_stopped:
        for replica in fleet.replicas:
            all_stopped.enter_context(stopped(replica))
        sign(fleet, count, timeout=1.5)
        for number in range(len(fleet.replicas)):
            fleet.kill(number)
    for number in range(len(fleet.replicas)):
        fleet.start_again(number)


def test_calls_without_an_answer_below_the_minimum_at_the_bound_and_above(fleet):
    begun(fleet)
    without_an_answer(fleet, 3)
    row = counted(fleet, lambda side: side.unanswered, 9)
    assert row.stage == RolloutStage.CANARY, "so few say nothing"
    sign_up_to(fleet, 81)
    row = counted(fleet, lambda side: side.signed, 81)
    assert (row.stage, row.new_side.unanswered) == (RolloutStage.CANARY, 9), "a tenth is allowed"
    without_an_answer(fleet, 5)
    assert rolled_back(fleet).after.unanswered > 9


def test_a_pause_outlives_every_replica_and_what_is_paused_is_still_taken_back(fleet):
    row = begun(fleet)
    key = {"tenant": TENANT, "key": KEY}
    fleet.ask("PauseRollout", pb.PauseRolloutRequest(**key))
    paused = fleet.get().rollout
    for replica in fleet.replicas:
        fleet.dev.end(replica)
    for number in range(len(fleet.replicas)):
        fleet.start_again(number)
    now = fleet.get().rollout
    assert (now.pace, now.remaining_ms) == (RolloutPace.HELD, paused.remaining_ms)
    fleet.ask("ResumeRollout", pb.ResumeRolloutRequest(**key))
    assert fleet.get().rollout.pace == RolloutPace.RUNNING
    fleet.ask("PauseRollout", pb.PauseRolloutRequest(**key))
    report(fleet, row.after.version, 0, 20)
    assert rolled_back(fleet).after.verify_failed >= 40


@pytest.fixture(scope="module")
def clock(fleet):
    """By how many milliseconds all replicas are off, a file. Agents keep the right time, and take
    no handles of a clock that is an hour off.
    """
    file = fleet.dev.directory / "clock"
    file.write_text("0")
    for number, replica in enumerate(fleet.replicas):
        fleet.dev.end(replica)
        fleet.start_again(number, module="support.skewed_adapter", CAPSIGN_TEST_CLOCK=str(file))
    yield file
    file.write_text("0")


def test_a_clock_that_steps_skips_no_step_and_hides_no_failure(fleet, clock):
    """Both ways, in all replicas."""
    row = begun(fleet)
    clock.write_text("-60000")
    report(fleet, row.after.version, 18, 2)
    row = fleet.until(lambda now: verifications(now.new_side) == 60)
    assert row.stage == RolloutStage.CANARY
    clock.write_text("300000")
    row = fleet.until(lambda now: now.remaining_ms < 400_000)
    assert row.stage == RolloutStage.CANARY, "half of its time is left"
    report(fleet, row.after.version, 0, 10)
    assert rolled_back(fleet).after.verify_failed > 6
    clock.write_text("0")


def healthy(fleet: Fleet, row: pb.Rollout) -> None:
    """Enough samples of its step that all is well."""
    sign(fleet, CALLS)
    report(fleet, row.after.version, 20, 0)
    fleet.until(lambda now: now.new_side.signed >= 45 and verifications(now.new_side) >= 60)


def looked(fleet: Fleet) -> pb.Rollout:
    """Where it is after two looks from now on."""
    for _ in range(2):
        before = fleet.get().rollout.through_leaf
        report(fleet, fleet.get().rollout.after.version, 1, 0)
        row = fleet.until(lambda now, seen=before: now.through_leaf > seen)
    return row


def test_a_clock_that_steps_back_and_forth_over_an_end_takes_each_step_once(fleet, clock):
    """A step ends when its time is over by the clock, and the next one lasts as long as it is to
    from there: a clock that is put back, and comes again to where it was, ends no further one.
    """
    row = begun(fleet)
    healthy(fleet, row)
    clock.write_text("500000")
    assert looked(fleet).stage == RolloutStage.CANARY
    clock.write_text("660000")
    row = fleet.until(lambda now: now.stage == RolloutStage.PROMOTE)
    healthy(fleet, row)
    for off in ("0", "660000", "-60000", "1200000", "0"):
        clock.write_text(off)
        assert looked(fleet).stage == RolloutStage.PROMOTE, off
    clock.write_text("1320000")
    fleet.until(lambda now: now.stage == RolloutStage.RETIRE)
    clock.write_text("0")
    assert fleet.get().rollout.remaining_ms == 600_000
    clock.write_text("1980000")
    while fleet.get().rollout.stage == RolloutStage.RETIRE:
        threading.Event().wait(0.1)
    steps = fleet.get().steps
    assert [step.act for step in steps] == [
        "started",
        "propagates",
        "canary",
        "promoted",
        "retires",
        "done",
    ]
    assert [step.epoch for step in steps] == sorted({step.epoch for step in steps})
