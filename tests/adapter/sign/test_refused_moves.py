"""What is refused is recorded with the name of what it was asked of, if there is such a thing."""

from __future__ import annotations

import pytest
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.sign.refused_moves import NOTHING, RefusedMoves
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, decode
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import OPERATOR, POLICY, AdapterRig

NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("demo", "orders", 0), "demo/orders"),
        (("demo", "orders", 1), "demo/orders/1"),
        (("demo", "orders", 99), "demo/orders"),
        (("demo", "nobody-made-this", 1), NOTHING),
        (("nobody-made-this", "orders", 0), NOTHING),
    ],
)
def test_a_name_that_no_key_has_is_not_repeated_in_the_log(tmp_path, asked, told):
    rig = AdapterRig(tmp_path, POLICY)
    moves = RefusedMoves(rig.store, lambda: bytes(32), Buckets(lambda: NOW), lambda: NOW)
    before = rig.store.control().tree_size
    with (
        pytest.raises(FailureError),
        moves.recorded_of_key(OPERATOR, Act.KEY_MOVE_REFUSED, *asked),
    ):
        raise FailureError(reasons.REASON_ROLE_MISSING)
    (entry,) = rig.store.entries(before, 2)
    said = decode(entry)
    assert isinstance(said, Admin)
    assert (said.act, said.actor, said.target) == (Act.KEY_MOVE_REFUSED, OPERATOR, told)
