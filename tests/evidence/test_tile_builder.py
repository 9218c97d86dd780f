"""Tiles built from leaf hashes are those that a store of the same log has."""

from __future__ import annotations

import pytest
from capsign_evidence.merkle import leaf_hash
from capsign_evidence.tile_builder import TileBuilder
from capsign_evidence.tiles import FileKind, TileName, parse_path, read_tile, tiles_of
from support.log_model import MemoryLog


def hashes_of(size: int, first: int = 0) -> list[bytes]:
    return [leaf_hash(b"entry %d" % number) for number in range(first, size)]


def built(builder: TileBuilder, hashes: list[bytes]) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    for at in range(0, len(hashes), 256):
        made |= {tile.path: data for tile, data in builder.add(hashes[at : at + 256])}
    return made | {tile.path: data for tile, data in builder.partial()}


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 65_536, 66_000])
def test_they_are_those_of_a_store(size):
    log = MemoryLog.of(size)
    expected = {tile.path: read_tile(log.hashes, tile) for tile in tiles_of(size)}
    assert built(TileBuilder(), hashes_of(size)) == expected


def test_a_builder_goes_on_from_what_is_stored():
    log = MemoryLog.of(66_000)
    begun = TileBuilder(65_792, lambda tile: read_tile(log.hashes, tile))
    made = built(begun, hashes_of(66_000, 65_792))
    expected = {tile.path: read_tile(log.hashes, tile) for tile in tiles_of(66_000, 65_792)}
    assert {path: made[path] for path in expected} == expected
    with pytest.raises(ValueError, match="a tile at a time"):
        list(begun.add(hashes_of(1)))
    with pytest.raises(ValueError, match="full tile"):
        TileBuilder(5)


@pytest.mark.parametrize(
    "tile", [TileName(0, 0), TileName(3, 999), TileName(0, 1000, 7), TileName(63, 1234067)]
)
def test_a_path_has_one_spelling(tile):
    assert parse_path(tile.path) == (FileKind.HASHES, tile)
    assert parse_path(f"{tile.path}/") is None
    assert parse_path(f"/{tile.path}") is None
    if not tile.level:
        assert parse_path(tile.entries_path) == (FileKind.ENTRIES, tile)
        assert parse_path(tile.batches_path) == (FileKind.BATCHES, tile)
