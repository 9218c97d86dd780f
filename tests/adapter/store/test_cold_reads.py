"""Reads of a volume that hangs keep their own threads, and whoever asks for a moment."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from capsign_adapter.store.cold_reads import THREADS, WAITING, ColdReads
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons

LONG_S = 60.0
"""Longer than any test takes."""


@pytest.fixture
def volume():
    """Reads of it hang until this is set."""
    answers = threading.Event()
    yield answers
    answers.set()


def late(reads: ColdReads, read) -> str:
    with pytest.raises(FailureError) as refused:
        reads.run(read)
    assert refused.value.reason == reasons.REASON_COLD_FILES_MISSING
    return refused.value.detail


def test_a_read_gives_what_it_gives_and_raises_what_it_raises():
    reads = ColdReads()
    assert reads.run(lambda: b"leaf") == b"leaf"

    def slow_network() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        reads.run(slow_network)


def test_a_read_that_hangs_costs_its_caller_a_deadline_and_nobody_else(volume):
    seen: Counter[str] = Counter()
    reads = ColdReads(deadline_s=0.05, count=lambda result: seen.update([result]))
    assert "not read within 0.05 s" in late(reads, volume.wait)
    assert reads.run(lambda: 7) == 7
    assert seen == {"late": 1, "done": 1}


def test_when_all_threads_hang_whoever_asks_is_refused_at_once(volume):
    seen: Counter[str] = Counter()
    reads = ColdReads(deadline_s=0.05, count=lambda result: seen.update([result]))
    for _ in range(THREADS):
        late(reads, volume.wait)
    asked: list[int] = []
    assert "hang" in late(reads, lambda: asked.append(1))
    assert seen == {"late": THREADS, "refused": 1}
    volume.set()
    pause = threading.Event()
    for _ in range(1000):
        try:
            assert reads.run(lambda: 7) == 7
            break
        except FailureError:
            pause.wait(0.01)
    else:
        pytest.fail("the volume answers, and nobody reads")
    assert asked == [], "what was refused is not read later"


def test_what_waited_too_long_in_the_queue_is_never_read(volume):
    patient, begun = ColdReads(deadline_s=0.2), threading.Semaphore(0)
    asked: list[int] = []

    def hang() -> None:
        begun.release()
        volume.wait()

    with ThreadPoolExecutor(THREADS) as pool:
        hanging = [pool.submit(late, patient, hang) for _ in range(THREADS)]
        for _ in range(THREADS):
            assert begun.acquire(timeout=LONG_S)
        late(patient, lambda: asked.append(1))
        for each in hanging:
            each.result()
    volume.set()
    assert asked == []


def test_so_many_wait_and_no_more(volume):
    refused = threading.Semaphore(0)
    reads = ColdReads(
        deadline_s=LONG_S, count=lambda result: result == "refused" and refused.release()
    )
    with ThreadPoolExecutor(WAITING + 3) as pool:
        asked = [pool.submit(reads.run, volume.wait) for _ in range(WAITING + 3)]
        for _ in range(3):
            assert refused.acquire(timeout=LONG_S)
        volume.set()
        errors = [each.exception(LONG_S) for each in asked]
    (told, *more) = [error for error in errors if error is not None]
    assert len(more) == 2
    assert "wait for cold files already" in str(told.detail)
