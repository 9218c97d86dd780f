"""How a replica is, from what it saw: a look that fails, one that does not come back, a clockwork
that stands still.
"""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest
from capsign_adapter.sign import health_checks
from capsign_adapter.sign.replica_health import LATE_MS, STUCK_MS, ReplicaHealth
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.token.interface import KeyMissingError, PinRejectedError, TokenUnavailableError


class Clock:
    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def condition(clock):
    return ReplicaHealth(clock, health_checks.fault_of)


def raising(error):
    def look():
        raise error

    return look


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (TokenUnavailableError("gone"), "token_unavailable"),
        (PinRejectedError("no"), "pin_rejected"),
        (KeyMissingError("no log key"), "log_key_missing"),
        (StoreUnavailableError("gone"), "store_unavailable"),
        (RuntimeError("a defect"), "internal"),
    ],
)
def test_a_fault_is_named_and_ends_when_what_it_names_is_well(condition, error, word):
    condition.run("it", raising(error))
    assert condition.faults() == (word,)
    condition.run("it", lambda: "")
    assert condition.faults() == ()


def test_a_look_that_does_not_come_back_is_a_fault(condition, clock):
    begun, go_on = threading.Event(), threading.Event()

    def hangs():
        begun.set()
        go_on.wait(60)
        return ""

    looking = threading.Thread(target=condition.run, args=("token", hangs))
    looking.start()
    begun.wait(60)
    assert condition.faults() == ()
    clock.now_ms += LATE_MS
    assert condition.faults() == ("token_silent",)
    assert condition.alive
    go_on.set()
    looking.join()
    assert condition.faults() == ()


def test_what_is_at_hand_is_asked_each_time(condition):
    answers = iter(["", "descriptors_exhausted", ""])
    condition.add_instant({"descriptors": lambda: next(answers)})
    assert [condition.faults() for _ in range(3)] == [(), ("descriptors_exhausted",), ()]


def test_a_clockwork_that_stands_still_is_a_process_of_no_more_use(condition, clock):
    assert condition.alive
    condition.beat("barrier")
    clock.now_ms += STUCK_MS - 1
    assert condition.alive
    clock.now_ms += 1
    assert not condition.alive
    assert condition.faults() == ()


class Store:
    def __init__(self):
        self.error, self.told_ms = None, None

    def write(self):
        if self.error:
            raise self.error

    def control(self):
        """It answers."""

    def clock_ms(self):
        return self.told_ms


def test_a_store_that_is_well_is_seldom_written_to_and_a_sick_one_is_tried_each_time(condition):
    store = Store()
    tries = []

    def write():
        tries.append(1)
        store.write()

    look = health_checks.store_check(store, write, None, lambda: 0, skew_ms=lambda: 0)
    for _ in range(10):
        condition.run("store", look)
    assert len(tries) == 10 / health_checks.WRITE_EVERY
    store.error = StoreUnavailableError("full")
    for _ in range(3):
        condition.run("store", look)
    assert condition.faults() == ("store_unavailable",)
    assert len(tries) == 10 / health_checks.WRITE_EVERY + 3


def test_the_store_takes_a_write_has_room_and_our_clock(condition, tmp_path, monkeypatch):
    store, room = Store(), [10**9]
    monkeypatch.setattr(
        os, "statvfs", lambda _: SimpleNamespace(f_bavail=room[0] // 1000, f_frsize=1000)
    )
    seen = []
    for error, free, told_ms in (
        (None, 10**9, None),
        (None, 10**9, 1_000_000 + 5_999),
        (None, 10**9, 1_000_000 - 7_000),
        (None, 1000, None),
        (StoreUnavailableError("full"), 1000, None),
        (StoreUnavailableError("read-only"), 10**9, None),
    ):
        store.error, room[0], store.told_ms = error, free, told_ms
        condition.run(
            "store",
            health_checks.store_check(
                store, store.write, tmp_path, lambda: 1_000_000, skew_ms=lambda: 1000
            ),
        )
        seen.append(condition.faults())
    assert seen == [
        (),
        (),
        ("clock_off",),
        ("disk_nearly_full",),
        ("disk_full",),
        ("store_unavailable",),
    ]
