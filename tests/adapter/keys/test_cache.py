"""The bounded cache: what it holds, for how long, and what clearing means."""

from __future__ import annotations

import weakref
from threading import Thread

import pytest
from capsign_adapter.keys.cache import BoundedCache


class Thing:
    pass


def cache(entries=3, age=100):
    return BoundedCache(entries, age)


def test_it_gives_back_what_was_put_until_its_time_is_over():
    c = cache(age=100)
    c.put("a", 1, now_ms=0, generation=c.generation)
    assert c.get("a", 99) == 1
    assert c.get("a", 100) is None
    assert len(c) == 0


def test_use_does_not_prolong_a_life():
    c = cache(age=100)
    c.put("a", 1, 0, c.generation)
    for now in range(0, 100, 10):
        assert c.get("a", now) == 1
    assert c.get("a", 100) is None


def test_when_full_the_least_recently_used_leaves():
    c = cache(entries=3)
    for name in "abc":
        c.put(name, name, 0, c.generation)
    c.get("a", 1)
    c.put("d", "d", 1, c.generation)
    assert [c.get(name, 1) for name in "abcd"] == ["a", None, "c", "d"]
    assert len(c) == 3


def test_sweep_drops_what_nobody_asks_for():
    c = cache(age=100)
    c.put("a", 1, 0, c.generation)
    c.put("b", 2, 50, c.generation)
    assert c.sweep(99) == 0
    assert c.sweep(100) == 1
    assert len(c) == 1


@pytest.mark.parametrize("leave", ["clear", "sweep", "expire", "push out", "overwrite"])
def test_what_leaves_is_let_go_of_at_once(leave):
    c = cache(entries=1, age=100)
    thing = Thing()
    seen = weakref.ref(thing)
    c.put("a", thing, 0, c.generation)
    del thing
    assert seen() is not None
    {
        "clear": c.clear,
        "sweep": lambda: c.sweep(100),
        "expire": lambda: c.get("a", 100),
        "push out": lambda: c.put("b", Thing(), 1, c.generation),
        "overwrite": lambda: c.put("a", Thing(), 1, c.generation),
    }[leave]()
    assert seen() is None


def test_what_was_begun_before_a_clear_is_not_kept():
    # A derivation starts, the key is revoked and the cache cleared, the derivation ends: its result
    # must not come to life.
    c = cache()
    generation = c.generation
    c.clear()
    assert c.put("a", 1, 0, generation) is False
    assert c.get("a", 0) is None
    assert c.put("a", 1, 0, c.generation) is True


@pytest.mark.parametrize(("entries", "age"), [(0, 1), (1, 0), (-1, 1)])
def test_a_cache_without_bounds_is_refused(entries, age):
    with pytest.raises(ValueError, match="at least one"):
        BoundedCache(entries, age)


def test_many_threads_never_see_another_keys_value_or_break_the_bound():
    c = cache(entries=8, age=50)
    wrong = []

    def work(seed):
        for step in range(3000):
            name = (seed * 7 + step) % 16
            c.put(name, name, step % 60, c.generation)
            got = c.get(name, step % 60)
            if got not in (None, name) or len(c) > 8:
                wrong.append((name, got))
            if step % 500 == 0:
                c.clear()
            if step % 100 == 0:
                c.sweep(step % 60)

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
