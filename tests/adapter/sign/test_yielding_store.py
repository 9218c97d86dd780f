"""The store beside the turns: who waits for it has none."""

from __future__ import annotations

import contextlib

import pytest
from capsign_adapter.sign.yielding_store import WAITED_FOR, YieldingStore


class Book:
    """Notes what is asked for, and whether the turn was given up for it."""

    def __init__(self) -> None:
        self.yielded = False
        self.asked: list[tuple[str, bool]] = []

    def __getattr__(self, name: str):
        def method(*arguments: object) -> object:
            self.asked.append((name, self.yielded))
            return arguments

        return method

    @contextlib.contextmanager
    def stand_aside(self):
        self.yielded = True
        try:
            yield
        finally:
            self.yielded = False


@pytest.mark.parametrize("name", sorted(WAITED_FOR))
def test_who_asks_the_store_has_no_turn_meanwhile(name):
    book = Book()
    assert getattr(YieldingStore(book, book.stand_aside), name)(1, 2) == (1, 2)
    assert book.asked == [(name, True)]
    assert not book.yielded


def test_what_batches_ask_for_passes():
    book = Book()
    YieldingStore(book, book.stand_aside).commit(1, [], 2)
    assert book.asked == [("commit", False)]
