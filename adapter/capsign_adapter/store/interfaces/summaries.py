"""Summaries of the log's full tiles, which let a query pass over what it is not about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Summaries(Protocol):
    """No evidence: each can be made again from entries and batches, always with the same bytes."""

    def summarised_tiles(self) -> int:
        """How many tiles of 256 leaves have one, counted from the first."""

    def save_summaries(self, first_tile: int, summaries: Sequence[bytes]) -> None:
        """Add those of the tiles from this one on. What is there already stays."""

    def summaries(self, first_tile: int, most: int, longest: int) -> list[tuple[int, bytes]]:
        """The first `most` summaries of tiles from this one on, each with the tile's index, without
        those of more than `longest` bytes. Tiles that moved to cold files have theirs there.
        """
