"""How much of a group is signed at once: all of it for whoever is alone, else what a turn takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from capsign_adapter.decide import cost
from capsign_adapter.sign.batch import Item
from capsign_adapter.sign.fair_scheduler import TURN_US, Turn
from capsign_adapter.sign.scope import Signable

PIECE = 32
"""Signatures of a batch that are committed at once where others are about: they wait behind these,
not behind a thousand.
"""

ALONE_US = 64 * TURN_US
"""Longest work of one piece where nobody else is about: who comes then waits for no more."""


def pieces(turn: Turn, signable: Signable, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items of a group, as many at a time as are to be signed at once. Each is paid for."""
    begin, number = 0, signable.row.number
    price = sum(cost.signature(number, key.signer.custody) for key in signable.keys)
    while begin < len(items):
        alone = len(items) == 1 or not turn.contended
        most = max(1, ALONE_US // price if alone else min(PIECE, TURN_US // price))
        if not begin and most >= len(items):
            turn.spend(price * len(items))
            yield items
            return
        some = items[begin : begin + most]
        turn.spend(price * len(some))
        yield some
        begin += most
