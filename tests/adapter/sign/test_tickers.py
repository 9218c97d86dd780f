"""The replica's clockwork: how often what is called, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.tickers import MORE_SECONDS, Periods, Ticker, tickers
from capsign_adapter.store.interfaces.ledger import MAX_COLLECTED

DAY_S = 86_400.0


class Ledger:
    """As much of a store as a collection sees: how many old rows there are, and how many at most
    went at once.
    """

    def __init__(self, old: int, told_ms: int | None = None) -> None:
        self.old = old
        self.told_ms = told_ms
        self.collected_at: list[int] = []
        self.rounds: list[int] = []
        self.done = threading.Event()

    def clock_ms(self) -> int | None:
        return self.told_ms

    def collect_garbage(self, now_ms: int, retention_ms: int, limit: int) -> int:
        self.collected_at.append(now_ms)
        gone = min(limit, self.old)
        self.old -= gone
        self.rounds.append(gone)
        if gone < limit:
            self.done.set()
        return gone


def collecting(ledger: Ledger, clock: Callable[[], int] = now_ms) -> Ticker:
    """The ticker that collects, once a day."""
    unused = {
        "epochs": SimpleNamespace(look=None),
        "barrier": None,
        "checkpoints": None,
        "beat": None,
        "sweeps": (),
    }
    periods = Periods(1, 1, DAY_S, retention_ms=lambda: 1, clock=clock)
    made = tickers(ledger, **unused, periods=periods)
    (ticker,) = (ticker for ticker in made if ticker.name == "collect")
    return ticker


@pytest.mark.parametrize(
    ("old", "rounds"),
    [
        (0, [0]),
        (7, [7]),
        (MAX_COLLECTED, [MAX_COLLECTED, 0]),
        (3 * MAX_COLLECTED + 7, [MAX_COLLECTED, MAX_COLLECTED, MAX_COLLECTED, 7]),
    ],
)
def test_a_collection_goes_on_until_nothing_old_is_left(old, rounds):
    """One round a minute took 10,000 intents: above 167 a second the ledger grew for ever."""
    ledger = Ledger(old)
    ticker = collecting(ledger)
    ticker.start()
    assert ledger.done.wait(10)
    ticker.stop()
    assert ledger.rounds == rounds


@pytest.mark.parametrize(("mine_ms", "told_ms", "taken_ms"), [(5, None, 5), (5, 3, 3), (3, 5, 3)])
def test_intents_are_forgotten_when_two_clocks_agree(mine_ms, told_ms, taken_ms):
    """A replica's node was two days ahead, and so were the agents there: their intents moved the
    watermark, and everybody else's were refused as expired for two days.
    """
    ledger = Ledger(0, told_ms)
    ticker = collecting(ledger, lambda: mine_ms)
    ticker.start()
    assert ledger.done.wait(10)
    ticker.stop()
    assert ledger.collected_at == [taken_ms]


class Stop:
    """In the place of a ticker's event: notes how long each wait would be, and stops it at the
    last.
    """

    def __init__(self, waits: int) -> None:
        self.waits: list[float] = []
        self._most = waits

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) == self._most


def run_through(ticker: Ticker, waits: int) -> list[float]:
    """What the ticker waits, in this thread, until it is stopped in its wait number `waits`."""
    stop = Stop(waits)
    ticker.run(stop.wait)
    return stop.waits


def test_a_collection_with_much_left_to_do_gives_others_a_turn_and_can_be_stopped():
    """A lock that is taken again as soon as it is free is never anybody else's; and the process may
    end an hour's work before.
    """
    ledger = Ledger(10**9)
    assert run_through(collecting(ledger), 2) == [MORE_SECONDS] * 2
    assert len(ledger.rounds) == 2
    assert not ledger.done.is_set()


def test_a_call_that_fails_is_made_again_at_its_time_and_no_sooner():
    """A store that is broken is not asked twenty times a second, whatever the last good round
    said.
    """
    calls: list[Any] = []

    def action() -> bool:
        calls.append(None)
        if len(calls) > 1:
            raise OSError
        return True

    assert run_through(Ticker("test", DAY_S, action), 2) == [MORE_SECONDS, DAY_S]


def test_work_that_can_wait_takes_its_share_of_a_core_and_no_more():
    """Summaries and reconciliation took a third of a core from signers while there was a lot to
    read.
    """
    used = iter([1.0, 1.2, 5.0, 5.0001, 9.0, 9.5])
    answers = iter([True, True, False])
    ticker = Ticker("test", 60, lambda: next(answers), share=0.05, cpu_s=lambda: next(used))
    assert run_through(ticker, 3) == pytest.approx([0.2 * 19, MORE_SECONDS, 60])


def test_what_is_under_way_can_have_a_pause_of_its_own():
    answers = iter([True, False])
    ticker = Ticker("test", 60, lambda: next(answers), more_s=7)
    assert run_through(ticker, 2) == [7, 60]


def test_it_ends_at_once_when_it_is_stopped_and_can_be_stopped_twice():
    begun = threading.Event()
    ticker = Ticker("test", DAY_S, begun.set)
    ticker.start()
    assert begun.wait(10)
    ticker.stop()
    ticker.stop()
    assert not any(one.name == "test" and one.is_alive() for one in threading.enumerate())


def test_however_long_it_took_it_is_called_at_its_time():
    used = iter([0.0, 100.0])
    ticker = Ticker("test", 60, lambda: True, share=0.05, cpu_s=lambda: next(used))
    assert run_through(ticker, 1) == [60]


def test_a_task_that_fails_is_overdue_until_it_is_done():
    """A full disk of cold files was one line of the log, once."""
    answers: list[bool] = [False, False]

    def action() -> None:
        if not answers.pop():
            raise OSError

    ticker = Ticker("test", 60, action)
    assert ticker.overdue_s(time.monotonic() + DAY_S) == 0, "it was never started"
    run_through(ticker, 2)
    assert ticker.overdue_s(time.monotonic() + 100) > 0
    answers.append(True)
    run_through(ticker, 1)
    assert ticker.overdue_s(time.monotonic() + 50) == 0


def test_a_task_that_hangs_is_overdue_and_keeps_no_replica_from_ending():
    begun, over = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        over.wait(60)

    ticker = Ticker("test", 60, hang)
    ticker.start()
    assert begun.wait(10)
    assert ticker.overdue_s(time.monotonic() + 100) > 0
    ticker.stop(within_s=0.01)
    over.set()
