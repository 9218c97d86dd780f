"""RFC 6962 hashing against the vectors of transparency-dev, pymerkle and the RFC's own
recursion.
"""

import itertools
import json
from pathlib import Path

import pymerkle
import pytest
from capsign_evidence.merkle import (
    EMPTY_ROOT,
    Completed,
    Frontier,
    TreeDataError,
    complete_root,
    leaf_hash,
    node_hash,
)
from hypothesis import given
from hypothesis import strategies as st
from support.log_model import MemoryLog, merkle_tree_hash

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rfc6962.json").read_text())
INPUTS = [bytes.fromhex(value) for value in VECTORS["leaf_inputs"]]


def test_leaf_and_node_hashes_are_those_of_the_vectors():
    rows = [[bytes.fromhex(value) for value in row] for row in VECTORS["node_hashes"]]
    assert [leaf_hash(entry) for entry in INPUTS] == rows[0]
    for below, row in itertools.pairwise(rows):
        assert [node_hash(below[2 * i], below[2 * i + 1]) for i in range(len(row))] == row


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_vectors(size):
    frontier, _ = Frontier().append([leaf_hash(entry) for entry in INPUTS[:size]])
    assert frontier.root().hex() == VECTORS["roots"][size]
    assert (frontier.root() == EMPTY_ROOT) == (size == 0)


def test_pymerkle_computes_the_same_root_for_every_size():
    oracle = pymerkle.InmemoryTree(algorithm="sha256")
    frontier = Frontier()
    for number in range(300):
        oracle.append_entry(b"entry %d" % number)
        frontier, _ = frontier.append([leaf_hash(b"entry %d" % number)])
        assert frontier.root() == oracle.get_root()


@given(st.lists(st.integers(0, 700), max_size=8))
def test_appending_in_batches_equals_appending_at_once(batches):
    split, whole = MemoryLog(), MemoryLog()
    entries = [b"%d" % number for number in range(sum(batches))]
    at = 0
    for width in batches:
        split.append(entries[at : at + width])
        at += width
    whole.append(entries)
    assert split.frontier == whole.frontier
    assert {level: row for level, row in split.levels.items() if row} == {
        level: row for level, row in whole.levels.items() if row
    }


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 511, 513, 1024, 70_000])
def test_completed_hashes_are_the_roots_of_full_tiles(size):
    log = MemoryLog.of(size)
    assert Frontier.decode(log.frontier).root() == merkle_tree_hash(log.levels[0])
    assert len(log.levels.get(1, [])) == size // 256
    assert len(log.levels.get(2, [])) == size // 65_536
    for level in (1, 2):
        for index, value in enumerate(log.levels.get(level, [])):
            width = 256**level
            assert value == merkle_tree_hash(log.levels[0][index * width : (index + 1) * width])


def test_a_tile_that_fills_up_is_completed_once_by_the_batch_that_fills_it():
    leaves = [leaf_hash(b"%d" % number) for number in range(257)]
    before, nothing = Frontier().append(leaves[:255])
    assert nothing == []
    _, done = before.append(leaves[255:])
    assert done == [Completed(1, 0, merkle_tree_hash(leaves[:256]))]


@given(st.integers(0, 3000))
def test_a_frontier_survives_its_encoding(size):
    frontier, _ = Frontier().append([leaf_hash(b"%d" % number) for number in range(size)])
    encoded = frontier.encode()
    assert Frontier.decode(encoded) == frontier
    assert len(encoded) == 8 + 32 * size.bit_count()


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        bytes(7),
        bytes(8) + bytes(32),
        (1).to_bytes(8, "big"),
        (3).to_bytes(8, "big") + bytes(32),
        (1).to_bytes(8, "big") + bytes(31),
        (1).to_bytes(8, "big") + bytes(33),
        (1 << 63).to_bytes(8, "big") + bytes(32),
    ],
    ids=[
        "empty",
        "short",
        "hash-too-many",
        "no-hash",
        "hash-missing",
        "hash-cut",
        "trailing-byte",
        "size-out-of-range",
    ],
)
def test_a_damaged_frontier_is_refused(damaged):
    with pytest.raises(TreeDataError):
        Frontier.decode(damaged)


@pytest.mark.parametrize("count", [0, 3, 255])
def test_only_a_power_of_two_makes_a_complete_subtree(count):
    with pytest.raises(TreeDataError):
        complete_root([bytes(32)] * count)
