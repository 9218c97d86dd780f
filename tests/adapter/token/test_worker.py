"""One thread, in order, bounded in number and in time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from capsign_adapter.token.interface import TokenUnavailableError
from capsign_adapter.token.worker import TokenThread


@pytest.fixture
def worker():
    thread = TokenThread("under test", waiting=4)
    yield thread
    thread.stop(10)


class Gate:
    """An operation that says when it has begun, and waits to be let go."""

    def __init__(self):
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self):
        self.begun.set()
        assert self.go.wait(30)
        return "through"


def wait_for_depth(worker, depth):
    """Calls enter the queue on other threads: look until they are in."""
    turns = threading.Event()
    for _ in range(3000):
        if worker.depth == depth:
            return
        turns.wait(0.01)
    pytest.fail(f"{worker.depth} calls wait, not {depth}")


def test_everything_runs_on_one_thread_of_that_name(worker):
    with ThreadPoolExecutor(3) as pool:
        names = set(pool.map(lambda _: worker.run(threading.current_thread, 10), range(50)))
    assert [thread.name for thread in names] == ["under test"]


def test_result_and_exception_come_back_to_their_caller(worker):
    assert worker.run(lambda: 7, 10) == 7
    with pytest.raises(ZeroDivisionError):
        worker.run(lambda: 1 // 0, 10)
    assert worker.run(lambda: 8, 10) == 8  # an exception does not end the thread


def test_a_full_queue_refuses_and_says_so(worker):
    gate = Gate()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(worker.run, gate, 30)
        assert gate.begun.wait(30)
        waiting = [pool.submit(worker.run, lambda: "waited", 30) for _ in range(4)]
        wait_for_depth(worker, 4)
        with pytest.raises(TokenUnavailableError, match="4 calls wait"):
            worker.run(lambda: "too much", 30)
        gate.go.set()
        assert first.result() == "through"
        assert [call.result() for call in waiting] == ["waited"] * 4


def test_a_call_given_up_before_it_began_never_runs(worker):
    gate, ran = Gate(), []
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(worker.run, gate, 30)
        assert gate.begun.wait(30)
        with pytest.raises(TokenUnavailableError, match=r"within 0\.01 s"):
            worker.run(lambda: ran.append(1), 0.01)
        gate.go.set()
        first.result()
    worker.run(lambda: None, 10)  # the queue is behind us
    assert ran == []


def test_stopping_refuses_what_waits_and_what_comes(worker):
    gate = Gate()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(worker.run, gate, 30)
        assert gate.begun.wait(30)
        waiting = [pool.submit(worker.run, lambda: "waited", 30) for _ in range(3)]
        wait_for_depth(worker, 3)
        stopping = pool.submit(worker.stop, 30)
        wait_for_depth(worker, 4)  # the call that ends the thread
        gate.go.set()
        stopping.result()
        assert first.result() == "through"
        for call in waiting:
            with pytest.raises(TokenUnavailableError):
                call.result()
    with pytest.raises(TokenUnavailableError, match="closed"):
        worker.run(lambda: None, 10)
