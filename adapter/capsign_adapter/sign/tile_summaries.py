"""Makes the summaries of the log's full tiles, beside the signing path (decision 62)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from capsign_evidence.archive.interface import Batch
from capsign_evidence.archive.summary import summarise
from capsign_evidence.merkle import TILE_WIDTH

from capsign_adapter.sign.tickers import BESIDE_SIGNERS, Ticker
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.evidence import AuditBatches, EvidenceLog
from capsign_adapter.store.interfaces.summaries import Summaries

EVERY_S = 5.0
"""Between looks for tiles that have filled up, seconds. Until a tile has its summary, queries read
it.
"""

TILES = 16
"""Tiles in one step, a millisecond each, and one commit for all of them."""

BATCHES = 16
"""Batches read at once; each is at most a mebibyte."""


class Summarised(ControlState, EvidenceLog, AuditBatches, Summaries, Protocol):
    """The parts of the store that this reads and writes."""


class TileSummaries:
    """Any replica may do it: who comes second writes nothing."""

    def __init__(self, store: Summarised, mine: Callable[[], bool] = lambda: True) -> None:
        """`mine` says whether it is for this replica to do, so that not all do the same."""
        self._store = store
        self._mine = mine

    def step(self) -> bool:
        """Summarise the next tiles. Returns whether there are more."""
        if not self._mine():
            return False
        done = self._store.summarised_tiles()
        full = self._store.control().tree_size // TILE_WIDTH
        upto = min(done + TILES, full)
        if done < upto:
            self._store.save_summaries(done, [self._of(tile) for tile in range(done, upto)])
        return upto < full

    def ticker(self) -> Ticker:
        return Ticker("summaries", EVERY_S, self.step, share=BESIDE_SIGNERS)

    def _of(self, tile: int) -> bytes:
        first = tile * TILE_WIDTH
        entries = self._store.entries(first, TILE_WIDTH)
        return summarise(first, entries, self._batches(first, first + TILE_WIDTH)).encode()

    def _batches(self, first: int, last: int) -> Iterator[Batch]:
        while first < last:
            found = self._store.audit_batches("", first, BATCHES, last)
            yield from found
            if len(found) < BATCHES:
                return
            first = found[-1][0] + 1
