"""Step 9: checks of an adapter's answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2


def longest_by_key(signed_by: Sequence[signing_pb2.SignedBy]) -> list[int]:
    """The longest signature that each of these keys can make, bytes; 0 for an entry that does not
    state its key, custody and algorithm.
    """
    unspecified = algorithms_pb2.CUSTODY_CLASS_UNSPECIFIED
    return [
        ALGORITHMS[each.algorithm].max_signature
        if each.kid and each.custody != unspecified and each.algorithm in ALGORITHMS
        else 0
        for each in signed_by
    ]


def is_signed(item: signing_pb2.SignedItem, longest: Sequence[int]) -> bool:
    """Whether the item has signatures, each by a listed key and of a possible length, and no
    failure beside them.
    """
    signatures = item.signatures
    if not signatures or item.HasField("failure"):
        return False
    for signature in signatures:
        key = signature.key
        if key >= len(longest) or not 0 < len(signature.value) <= longest[key]:
            return False
    return True
