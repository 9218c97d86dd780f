"""Threads without a queue: what finds none is run at once, to be refused."""

from __future__ import annotations

import threading

import pytest
from capsign_adapter.front.threads import REFUSING, Threads, refusing


@pytest.fixture
def threads():
    with Threads(2, "t") as made:
        yield made


def test_what_comes_when_all_are_busy_runs_where_it_comes_and_is_to_be_refused(threads):
    go = threading.Event()
    busy = [threads.submit(lambda: (go.wait(30), refusing())[1]) for _ in range(2 + REFUSING)]
    here = threading.get_ident()
    assert threads.submit(lambda: (threading.get_ident(), refusing())).result(timeout=0) == (
        here,
        True,
    )
    assert not refusing()
    go.set()
    assert not any(one.result(timeout=30) for one in busy)


def test_a_thread_that_is_done_takes_the_next(threads):
    for _ in range(10 * REFUSING):
        assert threads.submit(refusing).result(timeout=30) is False


def test_an_exception_is_that_of_the_call(threads):
    go = threading.Event()
    busy = [threads.submit(go.wait, 30) for _ in range(2 + REFUSING)]

    def fails():
        raise KeyError

    assert isinstance(threads.submit(fails).exception(timeout=0), KeyError)
    go.set()
    assert all(one.result(timeout=30) for one in busy)
