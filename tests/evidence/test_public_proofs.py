"""The proofs that transparency-dev/merkle publishes for other implementations, good and bad."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from capsign_evidence.proofs import ProofError, verify_consistency, verify_inclusion

FILE = Path(__file__).parents[1] / "vectors" / "transparency_dev_merkle.json"
VECTORS = json.loads(FILE.read_text())


def raw(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def hashes(vector) -> list[bytes]:
    return [raw(one) for one in vector["proof"] or ()]


def inclusion(vector) -> None:
    verify_inclusion(
        vector["leafIdx"],
        vector["treeSize"],
        raw(vector["leafHash"]),
        hashes(vector),
        raw(vector["root"]),
    )


def consistency(vector) -> None:
    verify_consistency(
        vector["size1"],
        raw(vector["root1"]),
        vector["size2"],
        raw(vector["root2"]),
        hashes(vector),
    )


def test_there_are_as_many_as_were_published():
    assert {kind: len(found) for kind, found in VECTORS.items()} == {
        "inclusion": 98,
        "consistency": 98,
    }


@pytest.mark.parametrize("name", VECTORS["inclusion"])
def test_inclusion(name):
    vector = VECTORS["inclusion"][name]
    if vector["wantErr"]:
        with pytest.raises(ProofError):
            inclusion(vector)
    else:
        inclusion(vector)


@pytest.mark.parametrize("name", VECTORS["consistency"])
def test_consistency(name):
    """Nothing is proven of a tree without leaves, which every tree extends: we take no proof of
    that, where others take an empty one. And some have words in the place of roots.
    """
    vector = VECTORS["consistency"][name]
    no_root = {len(raw(vector[root])) for root in ("root1", "root2")} != {32}
    if vector["wantErr"] or not vector["size1"] or no_root:
        with pytest.raises(ProofError):
            consistency(vector)
    else:
        consistency(vector)
