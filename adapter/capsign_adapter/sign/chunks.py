"""Cuts a group into chunks that are signed in one turn each; into large ones while no other batch
is being worked on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from capsign_adapter.decide import cost
from capsign_adapter.sign.batch import Item
from capsign_adapter.sign.fair_scheduler import TURN_US, Turn
from capsign_adapter.sign.scope import Signable

CHUNK = 32
"""Most signatures in one commit while other batches are being worked on: those then wait for this
many, not for a whole batch.
"""

ALONE_US = 64 * TURN_US
"""Longest work of one chunk of a batch that is alone: the longest wait of one that comes then."""


def chunks(turn: Turn, signable: Signable, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yields the items of a group in chunks. Spends the cost of each from the turn before it."""
    begin = price = 0
    for key in signable.keys:
        price += cost.signature(key.row.number, key.signer.custody)
    while begin < len(items):
        alone = len(items) == 1 or not turn.contended
        most = max(1, ALONE_US // price if alone else min(CHUNK, TURN_US // price))
        if not begin and most >= len(items):
            turn.spend(price * len(items))
            yield items
            return
        some = items[begin : begin + most]
        turn.spend(price * len(some))
        yield some
        begin += most
