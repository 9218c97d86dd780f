"""C2SP tlog-tiles: names, bytes and bundles."""

import pytest
from capsign_evidence.merkle import TreeDataError, leaf_hash
from capsign_evidence.tiles import (
    TileName,
    bundle,
    open_bundle,
    read_tile,
    tiles_of,
    width_at,
)
from hypothesis import given
from hypothesis import strategies as st
from support.log_model import MemoryLog


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (TileName(0, 0), "tile/0/000"),
        (TileName(0, 999), "tile/0/999"),
        (TileName(0, 1000), "tile/0/x001/000"),
        (TileName(1, 1_234_067), "tile/1/x001/x234/067"),  # the example of the specification
        (TileName(2, 0, 1), "tile/2/000.p/1"),
        (TileName(0, 273, 112), "tile/0/273.p/112"),
    ],
)
def test_paths_are_those_of_the_specification(tile, path):
    assert tile.path == path


def test_entry_bundles_have_paths_of_their_own():
    assert TileName(0, 1_234_067, 7).entries_path == "tile/entries/x001/x234/067.p/7"
    with pytest.raises(ValueError, match="level 0"):
        _ = TileName(1, 0).entries_path


@pytest.mark.parametrize("arguments", [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)])
def test_a_tile_that_cannot_exist_has_no_name(arguments):
    with pytest.raises(ValueError, match="a tile has"):
        TileName(*arguments)


def test_the_tree_of_70000_leaves_has_the_tiles_the_specification_counts():
    tiles = list(tiles_of(70_000))
    assert len([tile for tile in tiles if tile.level == 0 and tile.width == 256]) == 273
    assert [tile for tile in tiles if tile.level == 0 and tile.width < 256] == [
        TileName(0, 273, 112)
    ]
    assert [tile for tile in tiles if tile.level == 1] == [TileName(1, 0), TileName(1, 1, 17)]
    assert [tile for tile in tiles if tile.level == 2] == [TileName(2, 0, 1)]


def test_the_tree_of_256_leaves_has_a_full_tile_and_a_partial_one_above():
    assert list(tiles_of(256)) == [TileName(0, 0), TileName(1, 0, 1)]


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_what_is_new_in_a_larger_tree_is_what_the_smaller_one_has_not(one, other):
    old, new = sorted((one, other))
    assert set(tiles_of(new, since=old)) == set(tiles_of(new)) - set(tiles_of(old))


def test_tiles_read_from_the_log_hold_its_hashes():
    log = MemoryLog.of(600)
    assert read_tile(log.hashes, TileName(0, 2, 88)) == b"".join(
        leaf_hash(entry) for entry in log.entries[512:]
    )
    assert read_tile(log.hashes, TileName(1, 0, 2)) == b"".join(log.levels[1])
    assert width_at(0, 2, 600) == 88
    assert width_at(1, 0, 600) == 2
    assert width_at(0, 3, 600) == 0
    with pytest.raises(TreeDataError):
        read_tile(log.hashes, TileName(0, 2))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_a_bundle_gives_its_entries_back(entries):
    assert open_bundle(bundle(entries)) == entries


def test_a_bundle_is_length_and_entry():
    assert bundle([b"ab", b""]) == b"\x00\x02ab\x00\x00"


@pytest.mark.parametrize(
    "cut", [b"\x00", b"\x00\x02a", b"\x00\x00" * 257], ids=["length", "entry", "too-many"]
)
def test_a_damaged_bundle_is_refused(cut):
    with pytest.raises(TreeDataError):
        open_bundle(cut)


@pytest.mark.parametrize(
    "entries", [[], [b""] * 257, [bytes(65_536)]], ids=["none", "too-many", "too-long"]
)
def test_a_bundle_that_the_format_cannot_hold_is_not_made(entries):
    with pytest.raises(ValueError, match="a bundle has"):
        bundle(entries)
