"""The replica's clockwork: how often what is called, and how it ends."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from capsign_adapter.sign import watch
from capsign_adapter.sign.watch import Ticker, tickers
from capsign_adapter.store.interface import MAX_COLLECTED

DAY_S = 86_400.0


class Ledger:
    """As much of a store as a collection sees: how many old rows there are, and how many at most went at once."""

    def __init__(self, old: int) -> None:
        self.old = old
        self.rounds: list[int] = []
        self.done = threading.Event()

    def collect_garbage(self, now_ms: int, retention_ms: int, limit: int) -> int:
        gone = min(limit, self.old)
        self.old -= gone
        self.rounds.append(gone)
        if gone < limit:
            self.done.set()
        return gone


def collecting(ledger: Ledger) -> Ticker:
    """The ticker that collects, once a day."""
    unused = {"catch_up": SimpleNamespace(look=None), "fence": None, "checkpoints": None, "sweeps": ()}
    made = tickers(ledger, **unused, retention_ms=1, poll_seconds=1, checkpoint_seconds=1, collect_seconds=DAY_S)
    (ticker,) = (ticker for ticker in made if ticker._name == "collect")
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


def test_a_collection_with_much_left_to_do_does_not_hold_up_the_end():
    """The process is told to stop an hour's work before the ledger is clean: what is left is for the next one."""
    ledger = Ledger(10**9)
    ticker = collecting(ledger)
    ticker.start()
    while len(ledger.rounds) < 2:
        time.sleep(0.01)
    began = time.monotonic()
    ticker.stop()
    assert time.monotonic() - began < 5
    assert not ledger.done.is_set()


def test_other_writers_get_a_turn_between_two_rounds(monkeypatch):
    """A lock that is taken again as soon as it is free is never anybody else's."""
    monkeypatch.setattr(watch, "MORE_SECONDS", 60.0)
    ledger = Ledger(10**9)
    ticker = collecting(ledger)
    ticker.start()
    while not ledger.rounds:
        time.sleep(0.01)
    time.sleep(0.1)
    ticker.stop()
    assert len(ledger.rounds) == 1


def test_a_call_that_fails_is_made_again_at_its_time_and_no_sooner():
    """A store that is broken is not asked twenty times a second, whatever the last good round said."""
    calls = []

    def action() -> bool:
        calls.append(None)
        if len(calls) > 1:
            raise OSError
        return True

    ticker = Ticker("test", DAY_S, action)
    ticker.start()
    time.sleep(0.5)
    ticker.stop()
    assert len(calls) == 2
