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


def unsigned(
    items: Sequence[signing_pb2.SignedItem], longest: Sequence[int], asked: Sequence[bool]
) -> list[int]:
    """Where items are that are not signed as `is_signed` says, or first by a key that was not
    asked for. `asked` says it of each key. One loop without calls: it runs for every signature.
    """
    keys, bad = len(longest), []
    for at, item in enumerate(items):
        signatures = item.signatures
        good = bool(signatures) and not item.HasField("failure")
        for signature in signatures:
            key = signature.key
            if key >= keys or not 0 < len(signature.value) <= longest[key]:
                good = False
                break
        if not good or not asked[signatures[0].key]:
            bad.append(at)
    return bad


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
