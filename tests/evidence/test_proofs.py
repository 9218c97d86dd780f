"""Proofs against the vectors of transparency-dev, pymerkle, and everything that could be wrong with
one.
"""

import base64
import json
from pathlib import Path

import pymerkle
import pytest
from capsign_evidence.merkle import EMPTY_ROOT, TreeDataError, leaf_hash, node_hash
from capsign_evidence.proofs import (
    ProofError,
    TreeReader,
    Trees,
    verify_consistency,
    verify_inclusion,
)
from hypothesis import given
from hypothesis import strategies as st
from support.log_model import MemoryLog, merkle_tree_hash

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rfc6962.json").read_text())
EIGHT = MemoryLog()
EIGHT.append([bytes.fromhex(value) for value in VECTORS["leaf_inputs"]])
LARGE = MemoryLog.of(70_000)


def _bytes(values):
    return [base64.b64decode(value) for value in values]


def _inclusion_arguments(case):
    leaf, root = _bytes([case["leafHash"], case["root"]])
    return {
        "index": case["leafIdx"],
        "size": case["treeSize"],
        "leaf": leaf,
        "proof": _bytes(case["proof"]),
        "root": root,
    }


def _consistency_arguments(case):
    old_root, new_root = _bytes([case["root1"], case["root2"]])
    return {
        "old_size": case["size1"],
        "new_size": case["size2"],
        "old_root": old_root,
        "new_root": new_root,
        "proof": _bytes(case["proof"]),
    }


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda case: case["file"])
def test_published_inclusion_proofs(case):
    arguments = _inclusion_arguments(case)
    verify_inclusion(**arguments)
    assert (
        TreeReader(EIGHT.hashes, case["treeSize"]).inclusion(case["leafIdx"]) == arguments["proof"]
    )


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda case: case["file"])
def test_published_consistency_proofs(case):
    arguments = _consistency_arguments(case)
    if case["wantErr"]:
        with pytest.raises(ProofError):
            verify_consistency(**arguments)
    else:
        verify_consistency(**arguments)
        assert (
            TreeReader(EIGHT.hashes, case["size2"]).consistency(case["size1"]) == arguments["proof"]
        )


def _broken(arguments, numbers, hashes):
    """The ways in which transparency-dev's test data breaks a good proof."""
    proof = arguments["proof"]
    for name in numbers:
        for change in (
            arguments[name] - 1,
            arguments[name] + 1,
            arguments[name] ^ 2,
            arguments[name] * 2,
            arguments[name] // 2,
        ):
            if change != arguments[name]:
                yield f"{name}={change}", {**arguments, name: change}
    for name in hashes:
        yield f"empty {name}", {**arguments, name: b""}
        yield f"random {name}", {**arguments, name: leaf_hash(b"random")}
        yield f"trailing {name}", {**arguments, "proof": [*proof, arguments[name]]}
        yield f"preceding {name}", {**arguments, "proof": [arguments[name], *proof]}
    yield "trailing garbage", {**arguments, "proof": [*proof, b""]}
    yield "preceding garbage", {**arguments, "proof": [b"", *proof]}
    for at in range(len(proof)):
        flipped = bytes([proof[at][0] ^ 1 << 4]) + proof[at][1:]
        yield f"bit of {at}", {**arguments, "proof": [*proof[:at], flipped, *proof[at + 1 :]]}
        yield f"{at} missing", {**arguments, "proof": [*proof[:at], *proof[at + 1 :]]}
        yield f"{at} inserted", {**arguments, "proof": [*proof[:at], leaf_hash(b""), *proof[at:]]}


BROKEN_INCLUSION = [
    pytest.param(broken, id=f"{case['file'].split('/')[2]} {what}")
    for case in VECTORS["inclusion"]
    for what, broken in _broken(_inclusion_arguments(case), ("index",), ("leaf", "root"))
]
BROKEN_CONSISTENCY = [
    pytest.param(broken, id=f"{case['file'].split('/')[2]} {what}")
    for case in VECTORS["consistency"]
    if not case["wantErr"]
    for what, broken in _broken(
        _consistency_arguments(case), ("old_size",), ("old_root", "new_root")
    )
]


@pytest.mark.parametrize("arguments", BROKEN_INCLUSION)
def test_a_broken_inclusion_proof_is_refused(arguments):
    with pytest.raises(ProofError):
        verify_inclusion(**arguments)


@pytest.mark.parametrize("arguments", BROKEN_CONSISTENCY)
def test_a_broken_consistency_proof_is_refused(arguments):
    with pytest.raises(ProofError):
        verify_consistency(**arguments)


@given(st.data())
def test_every_proof_made_from_tiles_verifies(data):
    size = data.draw(st.integers(1, 1100), label="size")
    index = data.draw(st.integers(0, size - 1), label="index")
    old_size = data.draw(st.integers(1, size), label="old size")
    leaves = LARGE.levels[0]
    reader = TreeReader(LARGE.hashes, size)
    root = merkle_tree_hash(leaves[:size])
    assert reader.root() == root
    verify_inclusion(index, size, leaves[index], reader.inclusion(index), root)
    verify_consistency(
        old_size, merkle_tree_hash(leaves[:old_size]), size, root, reader.consistency(old_size)
    )


@given(st.data())
def test_a_proof_holds_for_no_other_leaf_index_or_root(data):
    size = data.draw(st.integers(2, 600), label="size")
    index = data.draw(st.integers(0, size - 1), label="index")
    other = data.draw(st.integers(0, size - 1).filter(lambda value: value != index), label="other")
    leaves = LARGE.levels[0]
    reader = TreeReader(LARGE.hashes, size)
    proof, root = reader.inclusion(index), reader.root()
    for wrong in [
        (index, leaves[other], root),
        (other, leaves[index], root),
        (index, leaves[index], leaves[other]),
    ]:
        with pytest.raises(ProofError):
            verify_inclusion(wrong[0], size, wrong[1], proof, wrong[2])


def test_a_rewritten_history_has_no_consistency_proof():
    honest, rewritten = MemoryLog(), MemoryLog()
    honest.append([b"%d" % number for number in range(300)])
    rewritten.append([b"%d" % number if number != 17 else b"another" for number in range(400)])
    old_root = TreeReader(honest.hashes, 300).root()
    reader = TreeReader(rewritten.hashes, 400)
    with pytest.raises(ProofError, match="does not start with"):
        verify_consistency(300, old_root, 400, reader.root(), reader.consistency(300))


def test_pymerkle_makes_the_same_proofs():
    oracle = pymerkle.InmemoryTree(algorithm="sha256")
    for number in range(300):
        oracle.append_entry(b"entry %d" % number)
    for size in (1, 2, 3, 7, 255, 256, 257, 300):
        reader = TreeReader(LARGE.hashes, size)
        assert reader.root() == oracle.get_root(size)
        for index in {0, size // 3, size - 1}:
            # pymerkle counts leaves from 1 and puts the leaf itself first.
            ours = [LARGE.levels[0][index], *reader.inclusion(index)]
            assert [
                bytes.fromhex(value)
                for value in oracle.prove_inclusion(index + 1, size).serialize()["path"]
            ] == ours


def test_our_consistency_proofs_connect_the_roots_of_pymerkle():
    oracle = pymerkle.InmemoryTree(algorithm="sha256")
    for number in range(300):
        oracle.append_entry(b"entry %d" % number)
    for old_size, size in [(1, 300), (255, 256), (256, 300), (7, 8), (6, 7), (128, 257)]:
        proof = TreeReader(LARGE.hashes, size).consistency(old_size)
        verify_consistency(old_size, oracle.get_root(old_size), size, oracle.get_root(size), proof)


@pytest.mark.parametrize("size", [65_536, 65_537, 65_793, 70_000])
def test_a_proof_reads_each_tile_once_and_few_of_them(size):
    leaves = LARGE.levels[0]
    root = merkle_tree_hash(leaves[:size])
    for index in (0, 255, 256, 65_535, size - 1):
        before = LARGE.reads
        proof = TreeReader(LARGE.hashes, size).inclusion(index)
        assert LARGE.reads - before <= 6  # two for each of three tile levels
        verify_inclusion(index, size, leaves[index], proof, root)


def test_a_proof_for_an_older_tree_ignores_what_came_later():
    root = merkle_tree_hash(LARGE.levels[0][:1000])
    assert TreeReader(LARGE.hashes, 1000).root() == root
    verify_inclusion(
        999, 1000, LARGE.levels[0][999], TreeReader(LARGE.hashes, 1000).inclusion(999), root
    )


def test_the_empty_tree_has_a_root_and_no_proofs():
    reader = TreeReader(LARGE.hashes, 0)
    assert reader.root() == EMPTY_ROOT
    with pytest.raises(ValueError, match="not in a tree of 0"):
        reader.inclusion(0)
    with pytest.raises(ValueError, match="does not extend"):
        reader.consistency(0)


@pytest.mark.parametrize("index", [-1, 5, 1 << 70])
def test_a_leaf_outside_the_tree_is_refused(index):
    with pytest.raises(ValueError, match="not in a tree of 5"):
        TreeReader(LARGE.hashes, 5).inclusion(index)


def test_a_store_that_lost_a_tile_is_damage_and_not_a_shorter_log():
    log = MemoryLog.of(600)
    del log.levels[0][40:]
    with pytest.raises(TreeDataError, match="has more"):
        TreeReader(log.hashes, 600).inclusion(3)
    with pytest.raises(TreeDataError):
        TreeReader(log.hashes, 600).root()


def test_an_endless_proof_is_refused_before_it_is_hashed():
    with pytest.raises(ProofError, match="at most 64"):
        verify_inclusion(0, 8, bytes(32), [bytes(32)] * 65, bytes(32))


def test_a_proof_that_climbs_above_the_root_is_refused():
    """Whoever could choose the root could otherwise hang a tree of 8 under one more node and still
    call it a tree of 8.
    """
    leaves, above = EIGHT.levels[0], leaf_hash(b"above")
    reader = TreeReader(EIGHT.hashes, 8)
    root = node_hash(above, reader.root())
    with pytest.raises(ProofError, match="too long"):
        verify_inclusion(3, 8, leaves[3], [*reader.inclusion(3), above], root)
    old_root = node_hash(above, merkle_tree_hash(leaves[:5]))
    with pytest.raises(ProofError, match="too long"):
        verify_consistency(5, old_root, 8, root, [*reader.consistency(5), above])


@given(st.integers(1, 2000), st.data())
def test_the_store_is_never_asked_for_more_than_the_tree_has(size, data):
    """A tree that grows while it is read must not matter, and a store may refuse what lies beyond
    its end.
    """

    def hashes(level, first, count):
        assert count > 0
        assert first + count <= size >> (8 * level)
        return LARGE.hashes(level, first, count)

    reader = TreeReader(hashes, size)
    reader.inclusion(data.draw(st.integers(0, size - 1)))
    reader.consistency(data.draw(st.integers(1, size)))
    assert reader.root() == merkle_tree_hash(LARGE.levels[0][:size])


def test_a_reader_that_is_asked_again_reads_the_tile_of_the_leaf_alone():
    """Everybody asks for proofs under the newest checkpoint: its right edge and the hashes above
    the leaf's tile are computed once.
    """
    trees = Trees(LARGE.hashes)
    fresh = [TreeReader(LARGE.hashes, 69_999).inclusion(index) for index in (3, 40_000)]
    assert trees.of(69_999).inclusion(3) == fresh[0]
    assert trees.of(69_999).inclusion(40_000) == fresh[1]
    before = LARGE.reads
    assert trees.of(69_999).inclusion(3) == fresh[0]
    assert LARGE.reads == before + 1
    assert trees.of(70_000).size == 70_000


def test_a_tile_that_was_not_whole_is_read_again():
    """A store that was restored meanwhile answers without a restart of whoever reads it."""
    held = 100

    def hashes(level, first, count):
        return LARGE.hashes(level, first, min(count, held))

    reader = TreeReader(hashes, 2000)
    with pytest.raises(TreeDataError):
        reader.inclusion(700)
    held = 256
    assert reader.inclusion(700) == TreeReader(LARGE.hashes, 2000).inclusion(700)


def test_what_a_reader_keeps_is_bounded_and_then_read_again():
    reader = TreeReader(LARGE.hashes, 70_000, most_tiles=2, most_nodes=16)
    first = reader.inclusion(3)
    for index in range(0, 70_000, 700):
        assert reader.inclusion(index) == TreeReader(LARGE.hashes, 70_000).inclusion(index)
    before = LARGE.reads
    assert reader.inclusion(3) == first
    assert LARGE.reads > before + 1
