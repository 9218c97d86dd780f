"""Step 9, for many items in one loop: it says what the check of a single item says."""

from __future__ import annotations

import pytest
from capsign_agent.sign.answer_check import is_signed, unsigned
from capsign_wire.types.v1 import failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types

LONGEST = [64, 0, 72]
GOOD = types.SignedItem(signatures=[types.Signature(key=0, value=b"s" * 64)])
FAILED = types.SignedItem(failure=failures_pb2.Failure(reason=failures_pb2.REASON_INTERNAL))


@pytest.mark.parametrize(
    "item",
    [
        types.SignedItem(),
        FAILED,
        types.SignedItem(signatures=GOOD.signatures, failure=FAILED.failure),
        types.SignedItem(signatures=[types.Signature(key=0, value=b"s" * 65)]),
        types.SignedItem(signatures=[types.Signature(key=0)]),
        types.SignedItem(signatures=[types.Signature(key=1, value=b"s")]),
        types.SignedItem(signatures=[types.Signature(key=3, value=b"s")]),
        types.SignedItem(signatures=[GOOD.signatures[0], types.Signature(key=2, value=b"s" * 73)]),
    ],
)
def test_each_kind_of_item_that_is_no_signature_is_found_among_good_ones(item):
    assert not is_signed(item, LONGEST)
    assert unsigned([GOOD, item, GOOD], LONGEST, [True, True, True]) == [1]


def test_a_signature_by_a_key_of_another_algorithm_is_none():
    other = types.SignedItem(signatures=[types.Signature(key=2, value=b"s" * 72)])
    both = types.SignedItem(signatures=[GOOD.signatures[0], other.signatures[0]])
    assert unsigned([GOOD, other, both], LONGEST, [True, True, False]) == [1]
